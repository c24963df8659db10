"""Several answers at once are those of one at a time, bit for bit, however they come and go."""

import random

import pytest

from edgebit.errors import EngineError
from edgebit.runtime.drafting import Drafting
from edgebit.runtime.engine import KV_TYPES
from edgebit.runtime.eval_errors import Cancelled, ContextFullError
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.prefix_cache import PrefixCache
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.session import Session

SAMPLINGS = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 5, "repetition_penalty": 1.2},
    {"temperature": 1.2, "top_p": 0.7},
    {"repetition_penalty": 1.3, "repetition_window": 8},
]


@pytest.fixture(scope="module")
def model(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model


@pytest.fixture(scope="module", params=KV_TYPES)
def kv(request):
    return request.param


@pytest.fixture(scope="module")
def alone(model, kv):
    """Gives what a session makes of one request that holds nothing of others, and remembers it."""
    session = Session(model, ctx_len=128, speculate=0, kv=kv)
    known = {}

    def answer_of(asked):
        key = repr(asked)
        if key not in known:
            session.engine.truncate()
            session.pool[0].tokens.clear()
            known[key] = Answer(prompt_tokens=0)
            for _ in session.generate(answer=known[key], **asked):
                pass
        return known[key]

    yield answer_of
    session.close()


def request(rng):
    """A prompt, often one that begins as others do, and how it is asked for."""
    common = [400, *([10, 11, 12, 13, 40] * rng.choice([1, 4, 14]))][: rng.choice([1, 20, 70])]
    ids = [*common, *(rng.randrange(1, 390) for _ in range(rng.choice([0, 1, 7, 40])))]
    how = SamplingParams(**rng.choice(SAMPLINGS), seed=rng.randrange(3))
    stop = rng.choice([[], [], ["a"], ["th", "e"]])
    return {"ids": ids, "sampling": how, "max_tokens": rng.choice([None, 1, 2, 9, 30]), "stop": stop}


@pytest.mark.parametrize("seed", range(12))
def test_answers_in_a_batch_are_those_of_one_at_a_time(seed, model, kv, alone):
    """Prompts of all lengths join at random steps, some leave before their end; chunks and prefix caches differ."""
    rng = random.Random(seed)
    session = Session(
        model,
        ctx_len=128,
        kv=kv,
        sequences=rng.choice([2, 3, 8]),
        batch_len=rng.choice([5, 32, 0]),
        prefix_cache=rng.choice([None, PrefixCache(memory_bytes=1 << 20)]),
    )
    waiting = [request(rng) for _ in range(14)]
    running, together = {}, 0
    while waiting or running:
        while waiting and session.pool.free and rng.random() < 0.4:
            asked, answer = waiting.pop(), Answer(prompt_tokens=0)
            running[session.begin(answer=answer, **asked)] = asked
        if running and rng.random() < 0.03:
            generation = rng.choice(list(running))
            text = generation.answer.text
            wanted = alone(running.pop(generation))
            assert generation.answer.tokens == wanted.tokens[: len(generation.answer.tokens)]
            rest = generation.cancel()
            assert generation.answer.text == text + rest
            session.end(generation)
        together = max(together, len(running))
        shown = {each: each.answer.text for each in running}
        for generation, pieces in session.step(list(running), prompt_most=rng.choice([None, 1, 10])):
            assert generation.answer.text == shown[generation] + "".join(pieces)
        for generation in [each for each in running if each.done]:
            wanted = alone(running.pop(generation))
            session.end(generation)
            got = generation.answer
            assert (got.tokens, got.text, got.done_reason) == (wanted.tokens, wanted.text, wanted.done_reason)
        if rng.random() < 0.2:
            session.keep()
    assert together >= 2 and session.pool.free == session.engine.sequences
    session.close()


def test_a_long_prompt_does_not_hold_up_who_decodes(model):
    """While another decodes, a pass computes so many tokens of prompts at most, and one of each that decodes."""
    session = Session(model, ctx_len=128, sequences=3, speculate=0)
    first = session.begin([400, 1, 2], Answer(prompt_tokens=3))
    session.step([first])
    long, short = (session.begin(ids, Answer(prompt_tokens=len(ids))) for ids in (range(1, 100), range(201, 220)))
    steps = []
    while long.prompt_left:
        before = len(first.answer.tokens), long.prompt_left, short.prompt_left
        session.step([first, long, short], prompt_most=16)
        after = len(first.answer.tokens), long.prompt_left, short.prompt_left
        steps.append([abs(b - a) for a, b in zip(before, after, strict=True)])
    assert all(one == 1 and to_long + to_short <= 16 for one, to_long, to_short in steps)
    assert steps[0] == [1, 8, 8], "the short one does not wait for the long one's end"
    for each in (first, long, short):
        session.end(each)
    session.close()


def test_drafts_are_for_one_that_is_alone(model):
    """Beside others there is a token each."""
    session = Session(model, ctx_len=128, sequences=2, speculate=4)
    session._drafting = drafting = Drafting(model.library, 4)
    ids = [400, *([10, 11, 12, 13, 40] * 6)]
    both = [session.begin(ids, Answer(prompt_tokens=0), max_tokens=60) for _ in range(2)]
    for _ in range(30):
        session.step(both)
    assert drafting.drafted == 0
    session.end(both.pop())
    while not both[0].done:
        session.step(both)
    assert drafting.drafted > 0
    session.end(both[0])
    session.close()


def test_a_pass_that_was_cancelled_changes_nothing(model, kv, alone):
    """It is computed again at the next step."""
    asked = {"ids": [400, *range(1, 60)], "max_tokens": 12}
    session = Session(model, ctx_len=128, sequences=2, batch_len=16, kv=kv)
    both = [session.begin(answer=Answer(prompt_tokens=0), **asked) for _ in range(2)]
    while not all(each.done for each in both):
        session.cancel()
        with pytest.raises(Cancelled):
            session.step(both)
        session.step(both)
    for each in both:
        assert each.done and each.answer.tokens == alone(asked).tokens
        session.end(each)
    session.close()


def test_what_was_computed_for_one_owner_is_not_used_for_another(model):
    """Neither from a sequence that is free or taken, nor from the prefix cache."""
    session = Session(model, ctx_len=128, sequences=3, prefix_cache=PrefixCache(memory_bytes=1 << 20))
    ids, reused = [400, *range(1, 60)], []
    for owner in ("a", "b", "a", "c", "b"):
        generation = session.begin(ids, Answer(prompt_tokens=60), max_tokens=2, owner=owner)
        reused.append(generation.answer.reused_tokens)
        while not generation.done:
            session.step([generation])
        session.end(generation)
        session.keep()
    assert reused == [0, 0, 59, 0, 59]
    session.close()


def test_a_beginning_is_copied_from_one_that_still_runs(model):
    """A system prompt is computed once for callers who come at the same time; no conversation's end is lost by it."""
    session = Session(model, ctx_len=128, sequences=3)
    system = [400, *range(1, 60)]
    first = session.begin([*system, 70, 71], Answer(prompt_tokens=62), max_tokens=20)
    session.step([first])
    second = session.begin([*system, 80], Answer(prompt_tokens=61), max_tokens=2)
    assert second.answer.reused_tokens == 60 and second.held is not first.held
    while not (first.done and second.done):
        session.step([first, second])
    session.end(first)
    session.end(second)
    third = session.begin([*system, 70, 71, *first.answer.tokens, 5], Answer(prompt_tokens=0), max_tokens=1)
    assert third.held is first.held and third.answer.reused_tokens > 62
    session.end(third)
    session.close()


def test_what_cannot_begin(model):
    """An empty prompt, one too long, and one more than there are sequences."""
    session = Session(model, ctx_len=32)
    with pytest.raises(ContextFullError, match="32"):
        session.begin([1] * 32, Answer(prompt_tokens=32))
    held = session.begin([1], Answer(prompt_tokens=1))
    with pytest.raises(EngineError, match="all 1 sequences of the engine are taken"):
        session.begin([1], Answer(prompt_tokens=1))
    session.end(held)
    assert session.pool.free == 1
    session.close()


def test_prompts_that_begin_alike_are_computed_once(model):
    """Of one owner, and at the same time: answers are those that each gets alone; another owner's computes its own."""
    common = list(range(1, 41))
    prompts = [[*common, 50 + n, 60 + n] for n in range(3)]
    alone = []
    for ids in prompts:
        session = Session(model, ctx_len=128, speculate=0)
        alone.append(Answer(prompt_tokens=len(ids)))
        list(session.generate(ids, alone[-1], max_tokens=4))
        session.close()
    session = Session(model, ctx_len=128, sequences=4, speculate=0)
    answers = [Answer(prompt_tokens=42) for _ in range(4)]
    owners = ["a", "a", "a", "b"]
    going = [
        session.begin(ids, answer, max_tokens=4, owner=owner)
        for ids, answer, owner in zip([*prompts, prompts[0]], answers, owners, strict=True)
    ]
    while not all(each.done for each in going):
        session.step(going)
    assert [each.reused_tokens for each in answers] == [0, 40, 40, 0]
    assert [each.tokens for each in answers] == [each.tokens for each in [*alone, alone[0]]]
    for each in going:
        session.end(each)
    session.close()


@pytest.mark.parametrize("end", ["end", "forget", "not stepped"])
def test_whoever_waits_for_a_prompt_goes_on_without_it(model, end):
    """Its maker is cancelled, forgotten or left out: what there is of it is copied, unless it is to be forgotten."""
    ids = list(range(1, 60))
    session = Session(model, ctx_len=128, sequences=2, speculate=0)
    first = session.begin([*ids, 70], Answer(prompt_tokens=60))
    second = session.begin([*ids, 80], Answer(prompt_tokens=60), max_tokens=3)
    session.step([first, second])
    assert second.answer.reused_tokens == 0
    if end != "not stepped":
        getattr(session, end)(first)
    while not second.done:
        session.step([second])
    fresh = Session(model, ctx_len=128, speculate=0)
    expected = Answer(prompt_tokens=60)
    list(fresh.generate([*ids, 80], expected, max_tokens=3))
    assert second.answer.tokens == expected.tokens
    assert (second.answer.reused_tokens > 0) == (end != "forget")
    fresh.close()
    session.close()
