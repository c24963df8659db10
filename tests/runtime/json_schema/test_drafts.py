"""Under a schema, too, drafted tokens change nothing, and what is not computed was never needed."""

import pytest
from sampling_cases import SAMPLINGS

from edgebit.runtime.constraint import Constraint, Vocabulary
from edgebit.runtime.drafting import Drafting
from edgebit.runtime.generation import Answer
from edgebit.runtime.json_schema import any_object, compile_schema
from edgebit.runtime.model import Model
from edgebit.runtime.session import Session
from edgebit.runtime.tokenizer import Tokenizer

CALLS = {
    "anyOf": [
        {"type": "object", "properties": {"intent": {"const": f"set_{name}"}, name: {"type": "integer"},
         "say": {"type": "string", "maxLength": 6}}, "required": ["intent", name, "say"]}
        for name in ("percent", "degrees", "timer_seconds")
    ]
}  # fmt: skip
PROGRAMS = {"calls": compile_schema(CALLS), "any object": any_object()}


class Always(Drafting):
    """Drafts all that is forced, whether it pays or not, and nothing else."""

    longest = 7

    def draft(self, tokens, most):
        return []

    def draft_forced(self, tokens, most):
        return tokens[: min(self.longest, most)]

    def record(self, accepted, ns):
        pass


@pytest.fixture(scope="module")
def model(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model


@pytest.fixture(scope="module")
def sessions(model):
    """A session without drafts, and one that drafts whatever is forced."""
    both = Session(model, ctx_len=128, speculate=0), Session(model, ctx_len=128, speculate=Always.longest)
    both[1]._drafting = Always(model.library, Always.longest)
    yield both
    for session in both:
        session.close()


def answer_to(session, program, *, seed=0, sampling=SAMPLINGS["greedy"]):
    answer = Answer(prompt_tokens=3)
    pieces = session.generate([500, 10 + seed, 11], answer, constraint=program, max_tokens=100, sampling=sampling)
    assert "".join(pieces) == answer.text
    return answer


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_drafts_of_what_is_forced_change_no_answer(program, sampling, sessions):
    """Token for token, though a model that was never trained splits words otherwise than its tokenizer."""
    drafted = accepted = 0
    for seed in range(6):
        wanted, got = (answer_to(each, PROGRAMS[program], seed=seed, sampling=SAMPLINGS[sampling]) for each in sessions)
        assert (got.tokens, got.text, got.done_reason) == (wanted.tokens, wanted.text, wanted.done_reason)
        drafted, accepted = drafted + got.drafted_tokens, accepted + got.accepted_tokens
    if program == "calls":  # nothing is forced in any object
        assert drafted > accepted > 0


def test_an_answer_is_drawn_from_the_logits_that_the_whole_head_gives(model):
    """As with an engine that computes all logits whatever is allowed: bit for bit, and so token for token."""

    class WholeHead(Session):
        def step(self, generations, **arguments):
            compute = self.engine.eval_batch
            self.engine.eval_batch = lambda *batch, **_: compute(*batch)
            try:
                return super().step(generations, **arguments)
            finally:
                del self.engine.eval_batch

    few, whole = Session(model, ctx_len=128), WholeHead(model, ctx_len=128)
    for program in PROGRAMS.values():
        for sampling in SAMPLINGS.values():
            assert (
                answer_to(few, program, sampling=sampling).tokens == answer_to(whole, program, sampling=sampling).tokens
            )
    few.close()
    whole.close()


def test_sets_along_tokens_are_the_masks_there(model):
    """Of every place of an answer, and the constraint stays where it was."""
    text = '{"intent":"set_timer_seconds","timer_seconds":120,"say":"ok"}'
    with Tokenizer.from_model(model) as tokenizer, Vocabulary.of_model(model, tokenizer) as vocabulary:
        tokens = tokenizer.encode(text)
        with Constraint(vocabulary, PROGRAMS["calls"]) as ahead, Constraint(vocabulary, PROGRAMS["calls"]) as along:
            for begin in range(len(tokens)):
                sets = ahead.sets(tokens[begin:])
                masks = []
                along.reset()
                for place, token in enumerate([*tokens, None]):
                    if place >= begin:
                        masks.append(mask_of(along, model.info.vocab_size))
                    if token is not None:
                        along.accept(token)
                assert [members(each, model.info.vocab_size) for each in sets] == masks
                ahead.accept(tokens[begin])


def mask_of(constraint, size):
    logits = memoryview(bytearray(4 * size)).cast("f")
    constraint.mask(logits)
    return [token for token in range(size) if logits[token] == 0]


def members(words, size):
    return [token for token in range(size) if words[token >> 5] >> (token & 31) & 1]
