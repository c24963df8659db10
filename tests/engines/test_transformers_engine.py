"""transformers behind the protocol of the engines: its own tokens, the reference's answers, and our native ones."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is what it runs on (pip install torch)")
pytest.importorskip("transformers", reason="transformers is the engine (pip install transformers)")
pytest.importorskip("accelerate", reason="transformers needs it to load a BitNet (pip install accelerate)")

from edgebit.bundle.prompt_program import Message
from edgebit.convert import convert
from edgebit.engines import native_engine, transformers_engine
from edgebit.engines.engine import OpenOptions
from edgebit.errors import CheckpointError, EngineError
from edgebit.evaluate.parity.agreement import SURE_GAP
from edgebit.runtime.eval_errors import ContextFullError
from edgebit.runtime.generation import Answer
from edgebit.runtime.sampler import SamplingParams

pytestmark = pytest.mark.reference
REFERENCE = Path(__file__).parents[1] / "reference"
MODELS = sorted(path.name for path in REFERENCE.iterdir() if path.is_dir())
MEMORISED = Path(__file__).parents[1] / "export" / "memorised"


def opened(path: Path, **options) -> transformers_engine.TransformersEngine:
    return transformers_engine.open_engine(path, OpenOptions(threads=1, **options))


def answered(engine, ids, **arguments) -> Answer:
    """A greedy answer unless arguments say otherwise; its pieces are its text."""
    answer = Answer(prompt_tokens=len(ids))
    arguments.setdefault("sampling", SamplingParams())
    pieces = list(engine.generate(ids, answer, **arguments))
    assert "".join(pieces) == answer.text
    return answer


@pytest.fixture(scope="module")
def engine():
    return opened(REFERENCE / "bitnet-packed")


@pytest.fixture(scope="module")
def ours(tmp_path_factory, native):
    model = tmp_path_factory.mktemp("model") / "bitnet-packed.ebm"
    convert(REFERENCE / "bitnet-packed", model)
    opened = native_engine.open_engine(model, OpenOptions(threads=1, kv="f32"))
    yield opened
    opened.close()


def test_a_context_longer_than_the_models_is_refused():
    """As by the other engines."""
    with pytest.raises(EngineError, match=r"a context of 100000 tokens was asked for, the model's is \d+"):
        opened(REFERENCE / "bitnet-packed", ctx_len=100_000)


def test_a_context_that_the_model_does_not_bound_is_asked_for(tmp_path):
    """BLOOM's configuration has no max_position_embeddings: ALiBi takes any length."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BloomConfig(vocab_size=512, hidden_size=32, n_layer=1, n_head=2)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    shutil.copy(REFERENCE / "bitnet-packed" / "tokenizer.json", tmp_path)
    with pytest.raises(EngineError, match=r"config\.json does not say how many tokens .* --ctx 2048"):
        opened(tmp_path)
    engine = opened(tmp_path, ctx_len=48)
    assert engine.context_len == 48
    assert len(answered(engine, [1, 2, 3], max_tokens=4).tokens) == 4


@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_are_the_references(name, monkeypatch):
    """With the cache and our loop, of every form of checkpoint: up to a near tie at the earliest."""
    reference = json.loads((REFERENCE / name / "reference.json").read_text())
    engine = opened(REFERENCE / name)
    monkeypatch.setattr(engine, "_stop_tokens", frozenset())
    monkeypatch.setattr(engine, "_decode", lambda tokens: "")  # most have no tokenizer
    found, wanted = answered(engine, reference["prompt"], max_tokens=64).tokens, reference["greedy_f32"]

    parting = next((at for at, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b), len(wanted))
    assert all(gap < SURE_GAP for gap in reference["greedy_top2_gap"][parting : parting + 1])


def test_prompts_become_the_native_engines_tokens(engine, ours):
    """Though other code makes them: plain, with the name of a special token in it, and in the template."""
    for prompt in ("The edge of the network.", "it's <|eot_id|> text", "é🙂"):
        assert engine.prompt_ids(prompt) == ours.prompt_ids(prompt)
    messages = [Message("system", "Be brief."), Message("user", "Hello there")]
    assert engine.chat_ids(messages) == ours.chat_ids(messages)


def test_makers_advice_is_the_native_engines(engine, ours):
    assert engine.sampling({"top_k": 3}, seed=5) == ours.sampling({"top_k": 3}, seed=5)


def test_a_sampled_answer_is_repeatable(engine):
    ids = engine.prompt_ids("The edge")
    first, again, other = (
        answered(engine, ids, max_tokens=8, sampling=SamplingParams(temperature=1.0, seed=seed)).tokens
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_an_answer_ends_as_it_should(engine):
    """At its limit, at a stop string, when it is cancelled, at the context's end; and says which."""
    ids = engine.prompt_ids("The edge of the")
    whole = answered(engine, ids, max_tokens=12)
    assert whole.done_reason == "length" and len(whole.tokens) == 12
    assert whole.prompt_ns > 0 and whole.decode_ns > 0

    stop = whole.text[3:5]
    stopped = answered(engine, ids, max_tokens=12, stop=[stop])
    assert stopped.done_reason == "stop" and stopped.text == whole.text[: whole.text.index(stop)]

    asked = iter([False, False, True])
    cancelled = answered(engine, ids, cancelled=lambda: next(asked))
    assert cancelled.done_reason == "cancelled" and cancelled.tokens == whole.tokens[:2]

    short = opened(REFERENCE / "bitnet-packed", ctx_len=len(ids) + 3)
    full = answered(short, ids)
    assert full.done_reason == "length" and full.tokens == whole.tokens[:3]
    with pytest.raises(ContextFullError, match="shorten it"):
        answered(short, [*ids, *ids])


def test_a_stop_token_is_no_part_of_the_answer(engine, monkeypatch):
    ids = engine.prompt_ids("The edge of the")
    tokens = answered(engine, ids, max_tokens=8).tokens
    monkeypatch.setattr(engine, "_stop_tokens", frozenset(tokens[2:3]))
    ended = answered(engine, ids, max_tokens=8)
    assert ended.done_reason == "stop" and ended.tokens == tokens[:2]


def test_figures_name_versions_and_memory(engine):
    figures = engine.figures()
    assert figures["threads"] == 1 and figures["weights_mib"] > 0.3
    assert figures["transformers"] in engine.description and figures["torch"] in engine.description


def test_what_it_cannot_do_is_said(tmp_path, engine):
    """Text without a tokenizer, a chat without a template, a checkpoint without weights."""
    memorised = opened(MEMORISED)
    with pytest.raises(EngineError, match="no tokenizer"):
        memorised.prompt_ids("text")
    with pytest.raises(EngineError, match="no chat template"):
        memorised.chat_ids([Message("user", "text")])
    with pytest.raises(EngineError, match="prompt is empty"):
        answered(engine, [])
    shutil.copy(MEMORISED / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="cannot load it"):
        opened(tmp_path)
