"""Schemas made to take a device's time or memory: each is refused, or compiled, by counting, not by a clock."""

import pytest

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema import compile_schema


def endless(own_name):
    """An object whose two properties are such objects again: no value is one, and comparing two kinds never ends."""
    properties = {name: {"$ref": f"#/$defs/{own_name}"} for name in ("left", "right")}
    return {"type": "object", "properties": properties, "required": ["left", "right"]}


ENDLESS = {
    "anyOf": [{"type": "null"}, {"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}],
    "$defs": {"a": endless("a"), "b": endless("b")},
}


@pytest.mark.parametrize(
    "schema", [ENDLESS, {"oneOf": [{"const": number} for number in range(2_000)]}], ids=["endless", "many"]
)
def test_comparing_the_branches_of_one_of_has_a_limit(schema):
    """Branches that refer to themselves, or a great many of them, would be compared for hours."""
    with pytest.raises(SchemaError, match="oneOf: its branches take too long to tell apart"):
        compile_schema(schema)


def test_a_plain_choice_of_one_hundred_is_no_attack():
    """The limit leaves room for what people write."""
    calls = [
        {"type": "object", "properties": {"do": {"const": f"act {number}"}, "on": {}}, "required": ["do"]}
        for number in range(100)
    ]

    assert compile_schema({"oneOf": calls}).startswith(b"EBJP")
