"""Drafted tokens change nothing: each answer is that of a session without drafts, token for token."""

import itertools
import random

import pytest
from sampling_cases import SAMPLINGS

from edgebit.errors import EngineError
from edgebit.runtime.drafting import Drafting
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.session import Session

PROMPTS = {
    "repetitive": [500, *([10, 11, 12, 13, 40] * 6)],
    "short": [500],
    "mixed": [500, *range(30, 60), 7, 8, 9, *range(30, 45)],
}


class Guesses(Drafting):
    """Drafts that are always tried: now of the tokens that will come, now of others, of all lengths."""

    def __init__(self, library, longest, wanted, start):
        super().__init__(library, longest)
        self.longest, self.wanted, self.start = longest, wanted, start
        self.random = random.Random(longest)
        self.passes = []

    def draft(self, tokens, most):
        at = len(tokens) - self.start
        draft = list(self.wanted[at : at + self.longest])
        if draft and self.random.random() < 0.6:
            draft[self.random.randrange(len(draft))] = self.random.randrange(500)
        return draft[: min(most, self.random.randrange(self.longest + 1))]

    def record(self, accepted, ns):
        self.passes.append(accepted)


@pytest.fixture(scope="module")
def model(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model


def generate(session, ids, **arguments):
    answer = Answer(prompt_tokens=len(ids))
    pieces = list(session.generate(ids, answer, **arguments))
    assert "".join(pieces) == answer.text
    assert session.engine.length() == len(session.pool[0].tokens)
    return answer


@pytest.fixture
def sessions(model):
    """A session without drafts, and one with drafts of up to 7 tokens."""
    both = Session(model, ctx_len=128, speculate=0), Session(model, ctx_len=128, speculate=7)
    yield both
    for session in both:
        session.close()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_right_and_wrong_drafts_change_no_answer(prompt, sampling, model, sessions):
    """To the context's end or max_tokens, greedy and drawn: the tokens, the text, and why it ended."""
    plain, drafting = sessions
    ids, how = PROMPTS[prompt], SAMPLINGS[sampling]
    for max_tokens in (None, 1, 2, 30):
        wanted = generate(plain, ids, sampling=how, max_tokens=max_tokens)
        drafting._drafting = guesses = Guesses(model.library, 7, wanted.tokens, len(ids))
        got = generate(drafting, ids, sampling=how, max_tokens=max_tokens)
        assert (got.tokens, got.text, got.done_reason) == (wanted.tokens, wanted.text, wanted.done_reason)
        assert sum(guesses.passes) == got.accepted_tokens <= got.drafted_tokens
        if max_tokens is None and len(wanted.tokens) > 60:
            assert got.accepted_tokens > 10
            assert got.drafted_tokens - got.accepted_tokens > 10


@pytest.mark.parametrize("longest", [1, 2, 3, 64])
def test_drafts_of_any_length_change_no_answer(longest, model, sessions):
    """As the library makes them, whatever it finds to pay on this machine now."""
    plain, _ = sessions
    session = Session(model, ctx_len=128, speculate=longest)
    for ids, sampling in itertools.product(PROMPTS.values(), SAMPLINGS.values()):
        wanted = generate(plain, ids, sampling=sampling)
        got = generate(session, ids, sampling=sampling)
        assert (got.tokens, got.done_reason) == (wanted.tokens, wanted.done_reason)
    session.close()


def test_a_stop_string_ends_an_answer_within_a_draft(model, sessions):
    """What came after it in the draft is neither in the text nor in the next answer."""
    plain, drafting = sessions
    ids = PROMPTS["repetitive"]
    whole = generate(plain, ids, max_tokens=60)
    for start in range(0, 60, 3):
        stop = [whole.text[start : start + 4]]
        wanted = generate(plain, ids, max_tokens=60, stop=stop)
        drafting._drafting = Guesses(model.library, 7, whole.tokens, len(ids))
        got = generate(drafting, ids, max_tokens=60, stop=stop)
        assert (got.tokens, got.text, got.done_reason) == (wanted.tokens, wanted.text, wanted.done_reason)
        turn = [*ids, *got.tokens, 40, 41]
        drafting._drafting = Drafting(model.library, 7)
        assert generate(drafting, turn, max_tokens=5).tokens == generate(plain, turn, max_tokens=5).tokens


def test_cancelling_within_a_draft_leaves_a_sound_session(model, sessions):
    """Between two tokens of one pass as anywhere else; and an iterator that is thrown away does no harm either."""
    plain, drafting = sessions
    ids = PROMPTS["repetitive"]
    whole = generate(plain, ids, max_tokens=60)
    for after in (1, 4, 9, 10, 11):
        polls = iter([False] * after + [True] * 100)
        drafting._drafting = Guesses(model.library, 7, whole.tokens, len(ids))
        got = generate(drafting, ids, max_tokens=60, cancelled=lambda polls=polls: next(polls))
        assert got.done_reason == "cancelled"
        assert got.tokens == whole.tokens[: len(got.tokens)]
        pieces = drafting.generate(ids, Answer(prompt_tokens=0), max_tokens=60)
        for _ in range(after):
            next(pieces)
        pieces.close()
    drafting._drafting = Drafting(model.library, 7)
    assert generate(drafting, ids, max_tokens=60).tokens == whole.tokens


def test_a_text_that_repeats_is_drafted(model):
    """The first draft is a trial of one token, on any machine; it is counted."""
    session = Session(model, ctx_len=128, speculate=4)
    session._drafting = drafting = Drafting(model.library, 4)
    answer = generate(session, [500, *([10, 11, 12, 13, 40] * 6)], max_tokens=90)
    assert answer.drafted_tokens == drafting.drafted > 0
    assert answer.accepted_tokens == drafting.accepted
    session.close()


def test_a_draft_longer_than_there_can_be_is_refused(model):
    with pytest.raises(EngineError, match="bad argument"):
        Drafting(model.library, 65)
