"""The head in planes: the best logits are those of the whole int8 head, to the last bit, on any vector."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgebit.bundle.model_format import NO_LAYER, Norms, Role
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.sampler import Sampler, SamplingParams
from tests.kernels.tiny_model import TinyModel, tiny_conf

SHAPE = {"hidden_size": 300, "ffn_size": 64, "n_layers": 1, "vocab_size": 1001, "norms": Norms(0)}
MANY = 40  # prompts of one token: as many vectors that the head meets


def _random(tiny: TinyModel) -> np.ndarray:
    return np.random.default_rng(5).integers(-127, 128, (tiny.conf.vocab_size, tiny.conf.hidden_size))


def _alike(tiny: TinyModel) -> np.ndarray:
    """All rows differ in their low planes only: the high plane says nothing, every row must be read on."""
    return 16 * 3 + np.random.default_rng(5).integers(0, 16, (tiny.conf.vocab_size, tiny.conf.hidden_size))


def _equal(tiny: TinyModel) -> np.ndarray:
    """Whole ties: every row stands seven times, and the lowest id must win."""
    return _random(tiny)[np.arange(tiny.conf.vocab_size) // 7]


def _misleading(tiny: TinyModel) -> np.ndarray:
    """Rows whose high plane promises most have the least below it, and the other way round."""
    random = np.random.default_rng(5)
    high = random.integers(-7, 7, (tiny.conf.vocab_size, 1))
    return 16 * high + np.where(high > 0, 0, 15) + random.integers(-1, 2, (tiny.conf.vocab_size, tiny.conf.hidden_size))


def _extreme(tiny: TinyModel) -> np.ndarray:
    """Only the outermost codes."""
    return np.random.default_rng(5).choice([-127, 127], (tiny.conf.vocab_size, tiny.conf.hidden_size))


HEADS = {"random": _random, "alike": _alike, "equal": _equal, "misleading": _misleading, "extreme": _extreme}


def _file(head: str) -> bytes:
    tiny = TinyModel(tiny_conf(**SHAPE), seed=3)
    tiny.set_head(HEADS[head](tiny).astype(np.int8))
    return tiny.to_bytes()


def _logits(model: Model, n_best: int, allowed: Sequence[Any] | None = None, **options: Any) -> np.ndarray:
    """Logits of MANY vectors, [MANY, vocab]: of single tokens as sequences of their own, in one batch."""
    with Engine(model, ctx_len=4, sequences=MANY, **options) as engine:
        engine.eval_batch(list(range(MANY)), list(range(MANY)), [True] * MANY, n_best=n_best, allowed=allowed)
        return np.stack([np.array(engine.logits(row)) for row in range(MANY)])


@pytest.mark.parametrize("n_best", [1, 2, 40, 1000, 1001, 5000])
@pytest.mark.parametrize("head", HEADS)
def test_the_best_logits_are_those_of_the_whole_head(head: str, n_best: int, native: Library):
    """What is not -infinity is the same bits; what is, is below the n_best-th; so argmax and top-k are the same."""
    with Model.from_bytes(native, _file(head)) as model:
        whole, best = _logits(model, 0), _logits(model, n_best)

    there = np.isfinite(best)
    assert (best[there] == whole[there]).all()
    assert (best[~there] == -np.inf).all()
    for got, wanted in zip(best, whole, strict=True):
        order = np.argsort(-wanted, kind="stable")[:n_best]
        assert np.array_equal(np.argsort(-got, kind="stable")[:n_best], order)
        least = wanted[order[-1]]
        assert np.isfinite(got[wanted >= least]).all(), "all rows that tie with the last one are there"


def _sets(vocab: int) -> np.ndarray:
    """Which tokens may follow, [MANY, vocab]: none, single ones, the last, neighbours, some, nearly all."""
    random = np.random.default_rng(7)
    sets = random.random((MANY, vocab)) < random.choice([0.002, 0.05, 0.5, 0.99], (MANY, 1))
    sets[0] = False
    sets[1:4] = np.arange(vocab) == np.array([[0], [vocab - 1], [500]])
    sets[4] = (np.arange(vocab) >= 253) & (np.arange(vocab) < 264)
    return sets


def _token_set(row: np.ndarray) -> Any:
    """In its C form; what stands beyond the vocabulary means nothing, and is set."""
    padded = np.ones(-(-len(row) // 32) * 32, bool)
    padded[: len(row)] = row
    words = np.packbits(padded, bitorder="little").view("<u4")
    return (ctypes.c_uint32 * len(words))(*words.tolist())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n_best", [0, 1, 40, 1000])
@pytest.mark.parametrize("head", HEADS)
def test_of_tokens_that_are_allowed_alone_the_logits_are_those_of_the_whole_head(
    head: str, n_best: int, threads: int, native: Library
):
    """The same bits, and -infinity of all others; n_best are then the best of those allowed. None in a row: all are."""
    with Model.from_bytes(native, _file(head)) as model:
        sets = _sets(model.info.vocab_size)
        sets[5::10] = True
        asked = [None if position % 10 == 5 else _token_set(row) for position, row in enumerate(sets)]
        whole, few = _logits(model, 0), _logits(model, n_best, asked, threads=threads)

    masked = np.where(sets, whole, -np.inf)
    if n_best == 0:
        assert np.array_equal(few, masked)
    there = np.isfinite(few)
    assert (few[there] == masked[there]).all()
    assert (few[~there] == -np.inf).all()
    for got, wanted in zip(few, masked, strict=True):
        best = np.argsort(-wanted, kind="stable")[:n_best]
        assert np.array_equal(got[best], wanted[best])


@pytest.mark.parametrize("head", HEADS)
def test_best_logits_are_the_same_at_every_isa_level_and_thread_count(head: str, isa_levels: list[str]):
    """Also which of the others are left out."""
    file = _file(head)
    with Model.from_bytes(Library.load(isa="scalar"), file) as model:
        wanted = _logits(model, 10)
    for isa in isa_levels:
        with Model.from_bytes(Library.load(isa=isa), file) as model:
            for threads in (1, 3):
                assert _logits(model, 10, threads=threads).tobytes() == wanted.tobytes(), f"{isa}, {threads} threads"


def test_rows_are_left_unread_where_a_row_stands_out(native: Library):
    """One row points where the hidden state does: of the others hardly any is read past its high plane."""
    tiny = TinyModel(tiny_conf(**SHAPE), seed=3)
    random = np.random.default_rng(9).integers(-30, 31, (tiny.conf.vocab_size, tiny.conf.hidden_size))
    hidden = tiny.weights[Role.TOKEN_EMBEDDING, NO_LAYER][7] * tiny.weights[Role.FINAL_NORM, NO_LAYER][0]
    random[500] = np.rint(127 * hidden / np.abs(hidden).max())
    tiny.set_head(random.astype(np.int8))
    with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model, ctx_len=4) as engine:
        engine.eval([7], n_best=1)
        stats = engine.stats()
        assert int(np.argmax(np.array(engine.logits()))) == 500
    assert stats.head_tokens == 1
    assert 1 <= stats.head_low_rows <= stats.head_middle_rows < tiny.conf.vocab_size // 4


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(repetition_penalty=1.3),
        SamplingParams(repetition_penalty=0.7),
        SamplingParams(temperature=0.8, top_k=5, seed=1),
        SamplingParams(temperature=1.5, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2, seed=2),
        SamplingParams(temperature=1.0, top_p=0.9, seed=3),
        SamplingParams(temperature=1.0, seed=4),
    ],
    ids=str,
)
@pytest.mark.parametrize("head", ["random", "equal", "alike"])
def test_tokens_drawn_from_the_best_logits_are_those_drawn_from_all(head: str, params: SamplingParams, native: Library):
    """Greedy and sampled, with penalties: reach() asks for as many logits as the draw can look at."""
    drawn = []
    with Model.from_bytes(native, _file(head)) as model:
        for ask_for_few in (False, True):
            with Engine(model) as engine, Sampler(native, model.info.vocab_size, params) as sampler:
                tokens = [3]
                sampler.accept(3)
                for _ in range(60):
                    engine.eval(tokens[-1:], n_best=sampler.reach() if ask_for_few else 0)
                    tokens.append(sampler.sample(engine.logits()))
            drawn.append(tokens)

    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("bound", [-1e30, -1.0, float("nan"), float("inf"), 3e38])
def test_bounds_that_no_sound_file_has_are_harmless(bound: float, native: Library):
    """Of a file that nobody verified: its best tokens are wrong, but nothing overflows, in sanitized builds too."""
    tiny = TinyModel(tiny_conf(**SHAPE), seed=3)
    tiny.set_head(_random(tiny).astype(np.int8), bound=bound)
    with Model.from_bytes(native, tiny.to_bytes()) as model:
        best, whole = _logits(model, 3), _logits(model, 0)
    there = np.isfinite(best)
    assert (best[there] == whole[there]).all() and (best[~there] == -np.inf).all()
    assert np.isfinite(whole).all()


def test_a_scale_that_is_no_number_rules_no_row_out(native: Library):
    """The other rows' logits are those of the whole head."""
    tiny = TinyModel(tiny_conf(**SHAPE), seed=3)
    codes = _random(tiny).astype(np.int8)
    scales = np.full(len(codes), 0.001, "<f4")
    scales[0] = np.nan
    tiny.set_head(codes, scales=scales)
    with Model.from_bytes(native, tiny.to_bytes()) as model:
        whole, best = _logits(model, 0), _logits(model, 1)
    assert np.array_equal(np.nanargmax(whole, axis=1), np.nanargmax(best, axis=1))


def test_as_many_best_as_there_are_numbers_are_all(native: Library):
    """top_k near 2^32 with a penalty: the sum with the window must not begin anew at 0."""
    params = SamplingParams(temperature=1.0, top_k=2**32 - 1, repetition_penalty=1.1, seed=1)
    with Sampler(native, 1001, params) as sampler:
        for token in range(64):
            sampler.accept(token)
        assert sampler.reach() == 0
