"""Schemas that answers cannot be held to: each is refused with the words that its file promises, and quickly."""

import json
from pathlib import Path

import pytest

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema import compile_schema, parse_schema

REFUSED = Path(__file__).parent / "refused"


@pytest.mark.parametrize("path", sorted(REFUSED.glob("*.json")), ids=lambda path: path.stem)
def test_a_schema_that_is_not_supported_is_refused(path):
    case = json.loads(path.read_text())

    with pytest.raises(SchemaError) as refused:
        compile_schema(case["schema"])

    assert case["promised"] in str(refused.value)


def deep(levels):
    schema = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(levels):
    """Each level stands twice in the next: 2^levels values for a text of a few lines."""
    defs = {"0": {"type": "null"}}
    for level in range(levels):
        below = {"$ref": f"#/$defs/{level}"}
        defs[str(level + 1)] = {"type": "array", "prefixItems": [below, below], "items": False, "minItems": 2}
    return {"$defs": defs, "$ref": f"#/$defs/{levels}"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (deep(100), "schemas deep"),
        ({"anyOf": [{"const": i} for i in range(5000)]}, "schemas in one"),
        ({"enum": ["x" * 1000 + str(i) for i in range(300)]}, "bytes together"),
        ({"enum": [f"{i:06}" for i in range(30000)]}, "too large"),
        ({"type": "array", "items": deep(3), "maxItems": 2000}, "larger than"),
    ],
    ids=["deep", "many", "long", "wide", "array"],
)  # fmt: skip
def test_more_than_a_device_can_bear_is_refused(schema, words):
    with pytest.raises(SchemaError, match=words):
        compile_schema(schema)


def test_what_is_shared_is_compiled_once():
    """Values that double with each level cost a rule a level, not 2^40 of them."""
    assert len(compile_schema(doubling(40))) < 10_000


def test_text_that_is_no_schema_is_refused():
    for text in ("{", b"\xff", "[" * 100_000, " " * (1 << 19)):
        with pytest.raises(SchemaError):
            parse_schema(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"type": "object", "properties": {"a": {"type": "null"}, "b": {}, "a": true}}', '"a" stands twice'),
        (b'{"minimum": 1, "type": "integer", "minimum": 2}', '"minimum" stands twice'),
        (b"", "empty"),
        (b"\xef\xbb\xbf \n", "empty"),
        ('{"type": "null"}'.encode("utf-16"), "UTF-16"),
        ('{"type": "null"}'.encode("utf-16-be"), "UTF-16"),
        ('{"const": "\xe9"}'.encode("latin-1"), "no UTF-8 at byte 11"),
    ],
    ids=["key", "keyword", "empty", "mark-alone", "utf-16", "utf-16-be", "latin-1"],
)  # fmt: skip
def test_a_file_that_is_not_what_was_meant_is_said(text, words):
    """Nothing is taken for the other."""
    with pytest.raises(SchemaError, match=words):
        parse_schema(text)


def test_a_byte_order_mark_is_no_fault():
    """Some editors write one."""
    assert parse_schema(b'\xef\xbb\xbf{"type": "null"}') == {"type": "null"}
