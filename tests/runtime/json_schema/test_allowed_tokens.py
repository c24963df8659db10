"""Which tokens a constraint allows: exactly those after which the answer can be completed, on every way through it."""

import json
from array import array
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgebit.checkpoint.tokenizer import read_tokenizer
from edgebit.errors import SchemaError
from edgebit.runtime.constraint import Completeness, Constraint, Vocabulary
from edgebit.runtime.json_schema import compile_schema
from edgebit.runtime.tokenizer import Tokenizer
from tests.runtime.json_schema.schemas import RECURSIVE, SCHEMAS
from tests.runtime.json_schema.spelling_oracle import Oracle

TINY = Path(__file__).resolve().parents[2] / "reference" / "bitnet-packed"
# Tokens that go over the seams of a schema, as large vocabularies have them.
SPANNING = ['{"', '":', '":"', '","', '"}', '"]', '"},{"', ":1", "12", "0.", ".5", "-1", "1e", '{"a', ',"b":', "[]",
            "{}", "[[", "]]", "}}", 'x","', "\\n", "\\u00", '\\"',
            'é"', "本", 'nul', "null}", "true,", "on", 'ab"', "日本"]  # fmt: skip
STOP = 600


@pytest.fixture(scope="module")
def vocabulary(native, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spanning")
    content = json.loads((TINY / "tokenizer.json").read_text())
    texts = [text for text in SPANNING if text not in content["model"]["vocab"]]
    first = max([*content["model"]["vocab"].values(), *(each["id"] for each in content["added_tokens"])]) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    content["added_tokens"] += [{"id": first + i, "content": text, **flags} for i, text in enumerate(texts)]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with (
        Tokenizer.from_section(native, read_tokenizer(folder / "tokenizer.json").section()) as tokenizer,
        Vocabulary(tokenizer, STOP + 1, [STOP]) as made,
    ):
        yield made


def allowed_tokens(constraint, vocabulary):
    logits = memoryview(array("f", bytes(4 * vocabulary.vocab_size))).cast("B").cast("f")
    constraint.mask(logits)
    return {token for token, logit in enumerate(logits) if logit == 0}


def texts_of(vocabulary):
    """The bytes of each token that text may consist of, in their order."""
    tokenizer = vocabulary.tokenizer
    ids = range(min(vocabulary.vocab_size, tokenizer.vocab_size))
    return sorted((tokenizer.token_bytes(each), each) for each in ids if not tokenizer.is_special(each))


def expected_tokens(oracle, so_far, texts):
    """By way of the oracle alone; beginnings that cannot be completed are asked for once."""
    found = {STOP} if oracle.is_answer(so_far) else set()

    def below(depth, group):
        for byte, same in groupby((each for each in group if len(each[0]) > depth), key=lambda each: each[0][depth]):
            same = list(same)
            if oracle.is_begun(so_far + same[0][0][:depth] + bytes([byte])):
                found.update(token for text, token in same if len(text) == depth + 1)
                below(depth + 1, same)

    below(0, texts)
    return found


def walk(vocabulary, schema, choices, steps):
    """Hold every mask on one way through the schema to the oracle; gives the text it came to, and whether it ended."""
    texts = texts_of(vocabulary)
    by_token = {token: text for text, token in texts}
    oracle, so_far = Oracle(schema), b""
    with Constraint(vocabulary, compile_schema(schema)) as constraint:
        for _ in range(steps):
            allowed = allowed_tokens(constraint, vocabulary)
            assert allowed == expected_tokens(oracle, so_far, texts), so_far
            assert allowed, f"a dead end after {so_far!r}"
            assert (constraint.completeness() is not Completeness.INCOMPLETE) == (STOP in allowed)
            assert (constraint.completeness() is Completeness.COMPLETE) == (allowed == {STOP})
            forced = constraint.forced()
            assert oracle.is_begun(so_far + forced)
            token = choices(sorted(allowed))
            constraint.accept(token)
            if token == STOP:
                return so_far, True
            so_far += by_token[token]
    return so_far, False


@settings(max_examples=25)
@given(schema=st.one_of(SCHEMAS, RECURSIVE), data=st.data())
@example(schema={"type": "string", "minLength": 2, "maxLength": 3}, data=None)
def test_a_mask_is_exactly_what_can_be_completed(vocabulary, schema, data):
    """Over random schemas and random answers to them, also where tokens go over the seams of a schema."""
    try:
        compile_schema(schema)
    except SchemaError as error:  # only what cannot be told apart within limits; what is refused has tests of its own
        assert "no value can be" in str(error) or "apart" in str(error) or "more than" in str(error)
        return
    choices = (
        (lambda allowed: allowed[len(allowed) // 2])
        if data is None
        else (lambda allowed: data.draw(st.sampled_from(allowed)))
    )
    walk(vocabulary, schema, choices, 12)
