"""Answers of a model that knows nothing of JSON: under a schema each that ends is valid, as another validator says."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.errors import EngineError, SchemaError
from edgebit.runtime.generation import Answer
from edgebit.runtime.json_schema import any_object, compile_schema
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.session import Session
from tests.runtime.json_schema.schemas import SCHEMAS

LAMPS = {
    "anyOf": [
        {"type": "object", "properties": {"intent": {"const": "on"}, "name": {"type": "string", "maxLength": 9}},
         "required": ["intent", "name"], "additionalProperties": False},
        {"type": "object", "properties": {"intent": {"const": "off"}, "say": {"type": "string", "maxLength": 9}},
         "required": ["intent", "say"], "additionalProperties": False},
    ]
}  # fmt: skip


@pytest.fixture(scope="module")
def sessions(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        session = Session(model, ctx_len=128, sequences=3)
        yield session
        session.close()


def answer_to(session, seed, program, max_tokens=100, **sampling):
    answer = Answer(prompt_tokens=3)
    pieces = session.generate(
        [500, 10 + seed, 11], answer, constraint=program, max_tokens=max_tokens,
        sampling=SamplingParams(seed=seed, **sampling),
    )  # fmt: skip
    assert "".join(pieces) == answer.text
    return answer


@settings(max_examples=12)
@given(schema=SCHEMAS, seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 1.0, 1e30]))
def test_an_answer_that_ends_is_valid(sessions, schema, seed, temperature):
    """For greedy decoding, and for a temperature at which every token is as likely as any."""
    jsonschema = pytest.importorskip("jsonschema")
    try:
        program = compile_schema(schema)
    except SchemaError:
        return
    answer = answer_to(sessions, seed, program, temperature=temperature, top_k=0, repetition_penalty=1.1)
    if answer.done_reason == "stop":
        jsonschema.Draft202012Validator(schema).validate(json.loads(answer.text))


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_k": 5}, {"temperature": 2.0, "top_p": 0.5}])
def test_the_shape_of_the_assistants_answers_is_always_kept(sessions, sampling):
    program = compile_schema(LAMPS)
    for seed in range(5):
        answer = answer_to(sessions, seed, program, **sampling)
        assert answer.done_reason == "stop"
        assert list(json.loads(answer.text)) in (["intent", "name"], ["intent", "say"])


def test_answers_side_by_side_have_constraints_of_their_own(sessions):
    """As alone: three at once, one of them free."""
    programs = [compile_schema(LAMPS), None, compile_schema({"type": "integer", "minimum": 100, "maximum": 999})]
    alone = [answer_to(sessions, i, program, 20) for i, program in enumerate(programs)]
    together = [Answer(prompt_tokens=3) for _ in programs]
    going = [
        sessions.begin([500, 10 + i, 11], together[i], constraint=program, max_tokens=20)
        for i, program in enumerate(programs)
    ]
    while not all(each.done for each in going):
        sessions.step(going)
    for each in going:
        sessions.end(each)
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    assert 100 <= int(together[2].text) <= 999


def test_every_level_of_instructions_gives_the_same_answer(native, isa_levels, reference_model):
    program, texts = compile_schema(LAMPS), set()
    for isa in isa_levels:
        with Model.open(Library.load(native.path, isa=isa), reference_model("bitnet-packed")) as model:
            session = Session(model, ctx_len=128)
            texts.add(answer_to(session, 7, program, temperature=1.0).text)
            session.close()
    assert len(texts) == 1


def test_an_answer_that_is_cut_says_so(sessions):
    assert answer_to(sessions, 1, any_object(), 1).done_reason == "length"


def test_a_program_that_is_damaged_is_refused(sessions):
    program = compile_schema(LAMPS)
    for damaged in (program[:-1], b"", program[:4] + b"\x02" + program[5:], program[:30] + b"\xff\xff" + program[32:]):
        with pytest.raises(Exception, match="constraint"):
            answer_to(sessions, 1, damaged)


def test_a_token_that_is_not_allowed_leaves_the_constraint_as_it_was(sessions):
    generation = sessions.begin([500, 10, 11], Answer(prompt_tokens=3), constraint=compile_schema(LAMPS))
    forced = generation.constraint.forced()
    brace, other = (sessions.tokenizer.encode(text)[0] for text in (b"{", b"x"))
    with pytest.raises(EngineError):
        generation.constraint.accept(other)
    assert generation.constraint.forced() == forced == b'{"intent":"o'
    assert generation.constraint.allowed([brace, other]) == 1
    sessions.end(generation)
