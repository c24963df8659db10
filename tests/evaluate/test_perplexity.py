"""Perplexity by sliding windows: against each token's context computed alone, numpy, and transformers' own loss."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from edgebit.errors import EdgebitError
from edgebit.evaluate.perplexity import TokenScores, measure_perplexity, standard_error
from edgebit.evaluate.text import encode_text, take_ids
from edgebit.evaluate.windows import Windows, log_probs, next_token_blocks, open_engine
from edgebit.resources import evaluation_text
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model

REFERENCE = Path(__file__).parent.parent / "reference"
ODD = "bitnet-packed-odd-untied"  # 300 tokens, no tokenizer


@pytest.fixture
def without_tokenizer(native, reference_model):
    with Model.open(native, reference_model(ODD)) as model:
        yield model


def alone(model, ids) -> tuple[np.ndarray, np.ndarray]:
    """The logits after a text that is computed by itself, and our log-probabilities of them."""
    with Engine(model, ctx_len=len(ids)) as engine:
        engine.eval(ids)
        return np.array(engine.logits()), log_probs(engine, 0, 1, where=0)[0]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In long double, by another formula than the one that is tested."""
    wide = logits.astype(np.longdouble)
    return (wide - np.logaddexp.reduce(wide, axis=-1, keepdims=True)).astype(np.float64)


@pytest.mark.parametrize(
    ("count", "length", "stride"), [(1, 5, 2), (2, 5, 2), (40, 8, 3), (40, 8, 7), (17, 16, 8), (9, 9, 1)]
)
def test_each_token_is_scored_once_with_enough_context(count, length, stride):
    """At least length - stride tokens before it, or all there are; no window is longer than it may be."""
    scored = []
    for window in Windows(length, stride).cut(count):
        assert window.end - window.begin <= length
        for place in range(window.first, window.end):
            scored.append(place)
            assert place - window.begin >= min(place, length - stride)
    assert scored == list(range(1, count))


@pytest.mark.parametrize(("length", "stride"), [(24, 9), (200, 100), (300, 140)])
def test_windows_have_the_bits_of_each_context_alone(length, stride, without_tokenizer):
    """Whatever passes a window was computed in: the logits before each token are those of its context alone."""
    rng = np.random.default_rng(length)
    ids = rng.integers(0, 300, 330).tolist()
    windows = Windows(length, stride)
    begins = {place: window.begin for window in windows.cut(len(ids)) for place in range(window.first, window.end)}
    checked = set(rng.choice(np.arange(1, len(ids)), 40, replace=False).tolist()) | {1, 2, len(ids) - 1}
    seen = 0
    with open_engine(without_tokenizer, windows, threads=2, kv="f16") as engine:
        for block in next_token_blocks(engine, ids, windows):
            for row, place in enumerate(range(block.first, block.end)):
                if place in checked:
                    logits, ours = alone(without_tokenizer, ids[begins[place] : place])
                    assert np.array_equal(block.log_probs[row], ours)
                    assert np.allclose(ours, log_softmax(logits), rtol=0, atol=1e-12)
                    seen += 1
    assert seen == len(checked)


def test_numbers_of_each_token(packed):
    """Log-probability, rank and best token are what numpy makes of the logits; the mean is theirs."""
    text = encode_text(packed, b"Hello world, this is a text of some words.", name="text")
    windows = Windows.of(packed, None, None)
    kept: list[TokenScores] = []
    with open_engine(packed, windows, threads=1, kv="f32") as engine:
        result = measure_perplexity(engine, text, windows, each=kept.append)
    with Engine(packed, ctx_len=len(text.ids), logits_rows=len(text.ids), kv="f32") as engine:
        engine.eval_batch(text.ids, [0] * len(text.ids), [True] * len(text.ids))
        logits = np.stack([np.frombuffer(engine.logits(row), np.float32) for row in range(text.scored)])
    targets = np.array(text.ids[1:])
    wanted = log_softmax(logits)[np.arange(text.scored), targets]
    assert np.allclose(np.concatenate([scores.log_prob for scores in kept]), wanted, rtol=0, atol=1e-12)
    order = (-logits).argsort(axis=1, kind="stable")
    assert np.concatenate([scores.best for scores in kept]).tolist() == order[:, 0].tolist()
    ranks = [row.tolist().index(target) + 1 for row, target in zip(order, targets, strict=True)]
    assert np.concatenate([scores.rank for scores in kept]).tolist() == ranks
    assert result.nll == pytest.approx(-wanted.mean(), abs=1e-12)
    assert result.perplexity == pytest.approx(math.exp(-wanted.mean()))
    assert result.bytes == 42 and result.tokens == text.scored and result.complete
    assert result.bits_per_byte == pytest.approx(-wanted.sum() / math.log(2) / 42)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in REFERENCE.glob("*/reference.json")))
def test_the_loss_of_transformers(name, native, reference_model, reference_checkpoint):
    """Over the 200 tokens whose loss was recorded with each reference checkpoint: within 0.02."""
    from safetensors.numpy import load_file

    folder = reference_checkpoint(name)
    ids = load_file(folder / "reference.safetensors")["long_ids"].tolist()
    recorded = json.loads((folder / "reference.json").read_text())["long_nll_f32"]
    with Model.open(native, reference_model(name)) as model:
        text, windows = take_ids(model, ids, name="ids"), Windows.of(model, None, None)
        with open_engine(model, windows, threads=1, kv="f32") as engine:
            result = measure_perplexity(engine, text, windows)
    print(f"\n{name}: {abs(result.nll - recorded):.4f} nats")
    assert abs(result.nll - recorded) <= 0.02
    assert result.tokens == 199


def test_a_part_is_what_was_scored_before_it_was_ended(packed):
    """The first blocks' own mean, bytes and count, and the word that it is a part."""
    text = encode_text(packed, evaluation_text().read_bytes(), name="text", limit=1500)
    windows = Windows.of(packed, 256, 128)
    kept: list[TokenScores] = []
    with open_engine(packed, windows, threads=1, kv="f16") as engine:
        result = measure_perplexity(
            engine, text, windows, each=kept.append, report=lambda done, total, value: done < 300
        )
    scored = -np.concatenate([scores.log_prob for scores in kept])
    assert not result.complete and 300 <= result.tokens < 1500
    assert (result.tokens, result.nll) == (len(scored), pytest.approx(scored.mean()))
    assert result.bytes == text.size(1, 1 + result.tokens)


def test_the_standard_error_sees_that_neighbours_are_alike():
    """For independent values it is that of the textbook; where each value comes eight times, it is larger."""
    values = np.random.default_rng(5).normal(size=40_000)
    assert standard_error(values) == pytest.approx(1 / 200, rel=0.2)
    assert standard_error(np.repeat(values, 8)) == pytest.approx(1 / 200, rel=0.25)  # not 1 / 566
    assert standard_error(values[:15]) is None


def test_the_shipped_text_is_whole():
    """100 KB of ASCII, with its licence beside it."""
    path = evaluation_text()
    assert path.stat().st_size == 99_912 and path.read_text("ascii").startswith("ARCHIDAMUS:")
    assert "public domain" in (path.parent / "README.md").read_text().replace("\n", " ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no text in it"),
        (b" \n\t", "no text"),
        (b"abc\xff", "byte 3 is no UTF-8"),
        ("x".encode("utf-16"), "UTF-8"),
    ],
)
def test_texts_that_cannot_be_scored(data, words, packed):
    with pytest.raises(EdgebitError, match=words):
        encode_text(packed, data, name="a.txt")


def test_a_single_token_needs_something_before_it(packed):
    """With begin-of-text it is scored, without it is too short."""
    assert encode_text(packed, b"a", name="a.txt").scored == 1
    with pytest.raises(EdgebitError, match="nothing to score"):
        encode_text(packed, b"a", name="a.txt", bos=False)


def test_a_model_without_tokenizer_takes_ids(without_tokenizer):
    """And says so of a text."""
    with pytest.raises(EdgebitError, match="--token-ids"):
        encode_text(without_tokenizer, b"abc", name="a.txt")
    with pytest.raises(EdgebitError, match="id 300 at place 1 is outside the vocabulary of 300"):
        take_ids(without_tokenizer, [1, 300], name="ids.json")
    text = take_ids(without_tokenizer, [1, 2, 3, 4], name="ids.json", limit=3)
    assert (text.scored, text.size(1, 3), text.words(1, 2)) == (2, None, None)


@pytest.mark.parametrize(
    ("length", "stride", "words"), [(4097, None, "takes 2 to 4096"), (64, 64, "1 to 63"), (2, 2, "1 to 1")]
)
def test_windows_that_cannot_be(length, stride, words, without_tokenizer):
    with pytest.raises(EdgebitError, match=words):
        Windows.of(without_tokenizer, length, stride)
