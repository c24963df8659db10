"""ONNX Runtime behind a session: several answers at once, each as our own engine makes it with a KV cache of f32."""

import functools

import pytest

from edgebit.errors import EngineError, OnnxError
from edgebit.resources import ort_library
from edgebit.runtime.eval_errors import Cancelled, ContextFullError
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.session import Session

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgebit.export.to_onnx import OnnxForm, export_onnx
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
from edgebit.onnx_engine.token_engine import OnnxEngine

CONTEXT = 128
COMMON = [400, *[10, 11, 12, 13, 40] * 5]
ASKED = [
    {"ids": [500, 10, 11], "max_tokens": 20},
    {"ids": [*COMMON, 7], "max_tokens": 9, "sampling": SamplingParams(temperature=1.0, seed=3)},
    {"ids": [*COMMON, 8, 9], "max_tokens": 30, "sampling": SamplingParams(repetition_penalty=1.3)},
    {"ids": [*range(2, 90)], "max_tokens": 12, "stop": ["a", "th"]},
    {"ids": [5] * 120},
]


@pytest.fixture(scope="module")
def model(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model


@pytest.fixture(scope="module", params=["contrib", "standard"])
def runtime(request, native, reference_checkpoint, tmp_path_factory):
    """The same model as a graph, on one thread, with our operators; standard makes its KV caches anew in each run."""
    folder = tmp_path_factory.mktemp("onnx") / "exported"
    form = OnnxForm(ops=request.param)
    export_onnx(reference_checkpoint("bitnet-packed"), folder, form=form, library=ort_library())
    session = OnnxSession.open(OnnxFolder.open(folder), threads=1)
    assert session.binding.state == "bound"
    return session


@pytest.fixture
def open_session(model, runtime):
    """Opens sessions over ONNX Runtime: three answers at once, prompts in pieces of 16 tokens."""
    opened = []

    def open_one():
        opener = functools.partial(OnnxEngine, runtime)
        opened.append(
            Session(model, ctx_len=CONTEXT, sequences=3, kv="f32", speculate=0, batch_len=16, open_engine=opener)
        )
        return opened[-1]

    yield open_one
    for session in opened:
        session.close()


@pytest.fixture
def session(open_session):
    return open_session()


@pytest.fixture(scope="module")
def expected(model):
    """The answers of our own engine."""
    session = Session(model, ctx_len=CONTEXT, kv="f32", speculate=0)
    answers = []
    for asked in ASKED:
        answers.append(Answer(prompt_tokens=len(asked["ids"])))
        for _ in session.generate(answer=answers[-1], **asked):
            pass
    session.close()
    return [(answer.tokens, answer.text, answer.done_reason) for answer in answers]


def begun(session, **asked):
    return session.begin(answer=Answer(prompt_tokens=len(asked["ids"])), **asked)


def made(generation):
    return generation.answer.tokens, generation.answer.text, generation.answer.done_reason


def all_at_once(session):
    """Each answer in its order, and how many were in the making together; new ones begin as soon as there is room."""
    waiting, going, done, together = list(range(len(ASKED))), {}, {}, 0
    while waiting or going:
        if waiting and session.pool.free:
            number = waiting.pop(0)
            going[begun(session, **ASKED[number])] = number
        session.step(list(going))
        together = max(together, len(going))
        for generation in [each for each in going if each.done]:
            assert generation.error is None
            done[going.pop(generation)] = generation
            session.end(generation)
    return [done[number] for number in range(len(ASKED))], together


def test_several_at_once_are_those_of_our_own_engine(open_session, runtime, expected):
    """However they come and go; prompts that begin alike are computed once.

    What is not ours to the last bit, as ONNX's own Attention, may draw another of two likely tokens, and does so again.
    """
    answers, together = all_at_once(open_session())
    assert together == 3 and answers[2].answer.reused_tokens > 0
    if runtime.folder.ops == "contrib":
        assert [made(each) for each in answers] == expected
    else:
        assert [made(each) for each in answers] == [made(each) for each in all_at_once(open_session())[0]]


def test_a_prompt_is_computed_in_pieces(session):
    """So that others get their next token, and cancel() is heard, in the middle of a long one."""
    first, second = begun(session, **ASKED[0]), begun(session, **ASKED[3])
    while first.prompt_left:
        session.step([first])
    left = second.prompt_left
    session.step([first, second], prompt_most=4)
    assert second.prompt_left == left - 4 and len(first.answer.tokens) > 1
    for generation in (first, second):
        session.end(generation)


def test_cancel_ends_a_pass_and_leaves_all_as_before(open_session, monkeypatch):
    """The next pass where none is in progress; one in progress in the middle, of whichever sequence it is."""
    session, undisturbed = open_session(), open_session()
    generations, others = ([begun(each, **ASKED[number]) for number in (0, 3)] for each in (session, undisturbed))
    session.step(generations)
    lengths = [decoder.length for decoder in session.engine._decoders]
    session.cancel()
    with pytest.raises(Cancelled):
        session.step(generations)
    first = session.engine._decoders[0]
    append = first.append
    monkeypatch.setattr(first, "append", lambda ids: (append(ids), session.cancel())[0])
    with pytest.raises(Cancelled):
        session.step(generations)
    monkeypatch.undo()
    assert [decoder.length for decoder in session.engine._decoders] == lengths
    session.cancel()
    session.engine.cancel_reset()
    for each, making in ((session, generations), (undisturbed, others)):
        while not all(generation.done for generation in making):
            each.step(making)
    assert [made(generation) for generation in generations] == [made(generation) for generation in others]


def test_what_does_not_fit_is_refused(session):
    with pytest.raises(ContextFullError, match=f"the prompt has {CONTEXT} tokens and the context {CONTEXT}"):
        begun(session, ids=[5] * CONTEXT)
    with pytest.raises(ContextFullError):
        session.engine.eval_batch([5] * (CONTEXT + 1), [0] * (CONTEXT + 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv": "f16"}, "its KV cache is f32, not f16"),
        ({"threads": 2}, "it was loaded for 1 threads, not 2"),
        ({"logits_rows": 5}, "no drafts can be tried"),
        ({"ctx_len": 1 << 20}, "a context of 1048576 tokens was asked for"),
    ],
)
def test_what_a_graph_cannot_do_is_said(model, runtime, options, words):
    with pytest.raises(OnnxError, match=words):
        OnnxEngine(runtime, model, **{"ctx_len": 64, **options})


def test_another_vocabulary_is_another_model(native, reference_model, runtime):
    with (
        Model.open(native, reference_model("falcon3-packed")) as other,
        pytest.raises(OnnxError, match="different models"),
    ):
        OnnxEngine(runtime, other, ctx_len=64)


def test_wrong_calls_are_refused(session, model):
    """A graph's Gather need not look at its index, and gives the logits of one row."""
    engine = session.engine
    for token in (-1, model.info.vocab_size):
        with pytest.raises(EngineError, match="outside the vocabulary"):
            engine.eval_batch([5, token], [0, 0])
    with pytest.raises(EngineError, match="only the logits of a sequence's last token"):
        engine.eval_batch([5, 6], [0, 0], [True, True])
    engine.eval_batch([5, 6], [0, 1], [True, False])
    with pytest.raises(EngineError, match="no row 1"):
        engine.logits(1)
    with pytest.raises(OnnxError, match="keeps them"):
        engine.set_threads(2)
    engine.set_threads(1)


def test_what_it_says_of_itself(session, runtime):
    stats = session.engine.stats()
    conf = runtime.folder.conf
    keeps = runtime.folder.ops == "contrib"
    held = 3 * CONTEXT * 2 * 4 * conf.n_layers * conf.n_kv_heads * conf.head_dim
    assert stats.kv_bytes == (held if keeps else 2 * held) and session.engine.keeps_memory is keeps
    assert stats.weight_bytes == (runtime.folder.path / "model.onnx.data").stat().st_size and stats.n_threads == 1
