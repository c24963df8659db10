"""An exported model answers as the native engine does, token for token: same prompt, same sampler, equal logits.

The native engine's KV cache is f32 for it, as the graph's is.
"""

from pathlib import Path

import pytest

from edgebit.convert import convert
from edgebit.engines import native_engine, ort_engine
from edgebit.engines.engine import OpenOptions
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
from edgebit.runtime.engine import Engine
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.sampler import SamplingParams

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

LENGTH, CONTEXT = 64, 128
SAMPLINGS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, top_p=0.9, top_k=40, seed=5),
    SamplingParams(temperature=0.7, min_p=0.05, repetition_penalty=1.3, seed=2**63),
]


@pytest.fixture
def both(reference_model, exported, ort_library, request):
    """The native engine and ONNX Runtime, over one model."""
    model = reference_model(request.param)
    engines = (
        native_engine.open_engine(model, OpenOptions(kv="f32", threads=1, ctx_len=CONTEXT)),
        ort_engine.open_engine(exported(model), OpenOptions(threads=1, ctx_len=CONTEXT, ort_library=str(ort_library))),
    )
    assert engines[1].session.binding.state == "bound"
    yield engines
    for engine in engines:
        engine.close()


def answer_of(engine, ids, sampling=SAMPLINGS[0], **options):
    answer = Answer(len(ids))
    shown = "".join(engine.generate(ids, answer, sampling=sampling, **{"max_tokens": LENGTH, **options}))
    assert shown == answer.text
    return answer


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "top-p", "min-p"])
@pytest.mark.parametrize("both", ["bitnet-packed", "bitnet-bf16"], indirect=True)
def test_answers_are_the_native_ones(both, sampling):
    native, ort = both
    ids = native.prompt_ids("Why is the sky blue?")
    assert ort.prompt_ids("Why is the sky blue?") == ids
    wanted, found = (answer_of(engine, ids, sampling) for engine in both)
    assert len(wanted.tokens) == LENGTH
    assert (found.tokens, found.text, found.done_reason) == (wanted.tokens, wanted.text, wanted.done_reason)


@pytest.mark.parametrize("both", ["bitnet-packed"], indirect=True)
def test_stop_strings_lengths_and_ctrl_c_end_it_as_there(both):
    ids = both[0].prompt_ids("Why is the sky blue?")
    stop = answer_of(both[0], ids).text[10:13]
    for options, reason in (
        ({"stop": [stop]}, "stop"),
        ({"max_tokens": 5}, "length"),
        ({"max_tokens": None}, "length"),
    ):
        wanted, found = (answer_of(engine, ids, **options) for engine in both)
        assert (found.text, found.done_reason) == (wanted.text, reason)
    asked = iter([False] * 4 + [True] * 9)
    found = answer_of(both[1], ids, cancelled=lambda: next(asked))
    assert found.done_reason == "cancelled" and 0 < len(found.tokens) < 5


@pytest.mark.parametrize("both", ["bitnet-packed"], indirect=True)
def test_a_prompt_that_begins_alike_is_not_computed_again(both):
    """And its answer is the same."""
    ids = both[1].prompt_ids("Why is the sky blue?")
    first, again, other = (answer_of(both[1], prompt) for prompt in (ids, ids, [*ids[:9], 7, 8]))
    assert again.tokens == first.tokens
    assert (first.reused_tokens, again.reused_tokens, other.reused_tokens) == (0, len(ids) - 1, 9)
    assert other.tokens == answer_of(both[0], [*ids[:9], 7, 8]).tokens


@pytest.mark.parametrize("both", ["bitnet-packed"], indirect=True)
def test_figures_and_description_say_what_ran(both):
    ort = both[1]
    answer_of(ort, [500, 7])
    figures = ort.figures()
    assert figures["kernel"] == "bound" and figures["fallback"] is None and figures["threads"] == 1
    assert figures["weights_mib"] > 0 and figures["onnxruntime"] in ort.description
    assert "fast kernel" in ort.description and ort.notes == ()
    assert ort.load_s > 0 and ort.context_len == both[0].context_len


CHECKPOINTS = [
    "bitnet-packed-odd-untied", "bonsai-f16", "falcon3-packed", "legacy-1bitllm-f16-head100", "legacy-1bitllm-f32",
    "llama-bitlinear-packed", "llama-bitlinear-rmsnorm-packed", "llama-master", "qwen2-zero-bias-packed",
    "qwen3-rmsnorm-packed", "trilm-f16",
]  # fmt: skip


def greedy(append, first, length):
    """Tokens drawn greedily by append(tokens) -> logits of the last one."""
    tokens, logits = [], append(first)
    for _ in range(length):
        tokens.append(int(max(range(len(logits)), key=logits.__getitem__)))
        logits = append(tokens[-1:])
    return tokens


@pytest.fixture
def model_of_tokens(request, reference_model, tmp_path):
    if request.param != "memorised":
        return reference_model(request.param)
    path = tmp_path / "memorised.ebm"
    convert(Path(__file__).parent.parent / "export" / "memorised", path)
    return path


@pytest.mark.parametrize("model_of_tokens", ["memorised", *CHECKPOINTS], indirect=True)
def test_models_of_tokens_alone_decode_the_same_64(native, model_of_tokens, exported, ort_library):
    """Those without a tokenizer, of every form that there is, and one whose answers are no noise."""
    with Model.open(native, model_of_tokens) as model, Engine(model, kv="f32") as engine:
        first = [3 + 11 * i % (model.info.vocab_size - 3) for i in range(20)]

        def append(tokens):
            engine.eval(tokens)
            return list(engine.logits())

        length = min(LENGTH, engine.ctx_len - len(first) - 1)
        wanted = greedy(append, first, length)
    session = OnnxSession.open(OnnxFolder.open(exported(model_of_tokens)), threads=1, library=str(ort_library))
    decoder = Decoder(session, batch_len=16)
    assert session.binding.state == "bound"
    assert greedy(lambda tokens: decoder.append(tokens)[0].tolist(), first, length) == wanted
