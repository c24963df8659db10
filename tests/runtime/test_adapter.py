"""Answers through adapters: several in one pass, and nothing that one has computed is taken for another's."""

import contextlib

import pytest

from edgebit.bundle.conf_section import read_conf
from edgebit.errors import EngineError
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.prefix_cache import PrefixCache
from edgebit.runtime.session import Session
from tests.kernels.random_adapter import random_adapter

PROMPT = [500, *range(10, 90)]
LENGTH = 6


@pytest.fixture(scope="module")
def model(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model


@pytest.fixture
def adapters(native, model):
    """Two of them."""
    conf = read_conf(model.section("CONF"))
    with contextlib.ExitStack() as opened:
        files = [random_adapter(model, conf, seed=seed, rank=2).pack() for seed in (1, 2)]
        yield [opened.enter_context(Adapter.open(native, model, file)) for file in files]


@contextlib.contextmanager
def session_of(model, **options):
    session = Session(model, ctx_len=128, **options)
    try:
        yield session
    finally:
        session.close()


def answer_of(session, adapter, prompt=PROMPT):
    answer = Answer(prompt_tokens=len(prompt))
    for _ in session.generate(prompt, answer, max_tokens=LENGTH, adapter=adapter):
        pass
    return answer


def tokens_apart(model, adapters):
    """What each, None first, answers in a session of its own."""
    found = []
    for adapter in (None, *adapters):
        with session_of(model) as session:
            found.append(answer_of(session, adapter).tokens)
    return found


def test_answers_in_one_pass_are_those_of_each_alone(model, adapters):
    """Without, with one and with another, all of the same prompt, side by side: the tokens that each gives alone."""
    wanted = tokens_apart(model, adapters)
    assert len(set(map(tuple, wanted))) == 3

    with session_of(model, sequences=3) as session:
        answers = [Answer(prompt_tokens=len(PROMPT)) for _ in range(3)]
        going = [
            session.begin(PROMPT, answer, max_tokens=LENGTH, adapter=adapter)
            for answer, adapter in zip(answers, (None, *adapters), strict=True)
        ]
        while any(not each.done for each in going):
            session.step(going)
        for each in going:
            session.end(each)

    assert [answer.tokens for answer in answers] == wanted


@pytest.mark.parametrize("sequences", [1, 3])
def test_what_one_has_computed_is_used_by_that_one_alone(sequences, model, adapters):
    """The same prompt again and again in one session: reused where the adapter is the same, and nowhere else."""
    wanted = dict(zip((None, *adapters), tokens_apart(model, adapters), strict=True))
    first, second = adapters
    with session_of(model, sequences=sequences) as session:
        several = sequences > 1
        for adapter, reused in (
            (None, False), (first, False), (first, True), (second, False), (None, several), (first, several),
        ):  # fmt: skip
            answer = answer_of(session, adapter)
            assert answer.tokens == wanted[adapter]
            assert (answer.reused_tokens > 0) == reused


def test_the_prefix_cache_knows_adapters_apart(model, adapters, native, tmp_path):
    """On disk, over sessions and a reopened adapter: found by the same file's content, by no other and not by none."""
    first, second = adapters
    with session_of(model, prefix_cache=PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 24)) as session:
        wanted = answer_of(session, first).tokens
        session.keep()
    conf = read_conf(model.section("CONF"))
    with Adapter.open(native, model, random_adapter(model, conf, seed=1, rank=2).pack()) as again:
        for adapter, reused in ((second, False), (None, False), (again, True)):
            cache = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 24)
            with session_of(model, prefix_cache=cache) as session:
                answer = answer_of(session, adapter)
            assert (answer.reused_tokens > 0) == reused
        assert answer.tokens == wanted


def test_an_adapter_is_dropped_once_no_answer_needs_it(model, adapters):
    """Refused while one is being made; then it can be closed, and the session goes on without."""
    first, _ = adapters
    with session_of(model, sequences=2) as session:
        going = session.begin(PROMPT, Answer(prompt_tokens=len(PROMPT)), max_tokens=LENGTH, adapter=first)
        session.step([going])
        with pytest.raises(EngineError, match="an answer is being made"):
            session.drop_adapter(first)
        session.end(going)
        with pytest.raises(EngineError, match="in use"):
            first.close()
        session.drop_adapter(first)
        first.close()

        assert answer_of(session, None).tokens == tokens_apart(model, [])[0]


def test_an_adapter_of_another_model_begins_no_answer(model, adapters, native, reference_model):
    """The refusal leaves the sequence free for the next prompt."""
    with Model.open(native, reference_model("bitnet-packed")) as twin, session_of(twin) as session:
        with pytest.raises(EngineError, match="opened for another model"):
            answer_of(session, adapters[0])
        assert len(answer_of(session, None).tokens) == LENGTH
