"""Schemas made to take a device's time or memory: each is refused, or compiled, by counting, not by a clock."""

import pytest

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema import compile_schema, determinise, network


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


def doubling(depth):
    """References each of which stands for the next one twice: 2**depth ways to the same number, in a few bytes."""
    steps = {f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**steps, f"d{depth}": {"type": "integer"}}}


def of_lengths(kind, number):
    """Strings of many lengths, to be told apart character by character."""
    strings = [{"type": "string", "maxLength": 512 - each} for each in range(number)]
    return {"anyOf": [{"type": kind, "items": each} for each in strings] if kind == "array" else strings}


TREES = {
    "$ref": "#/$defs/tree",
    "$defs": {
        "tree": {"anyOf": [{"type": "array", "items": {"$ref": f"#/$defs/{name}"}} for name in ("tree", "leaf")]},
        "leaf": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/tree"}}, {"type": "string"}]},
    },
}


@pytest.mark.parametrize(
    "schema",
    [doubling(30), of_lengths("string", 40), of_lengths("array", 40), TREES],
    ids=["doubling", "strings", "arrays", "trees"],
)
def test_the_compiler_stops_early(schema, monkeypatch):
    """Each of these would fill any limit: what is done until it is refused is counted, since time is what is meant."""
    done = 0

    def counted(act):
        def counting(*arguments):
            nonlocal done
            done += 1
            return act(*arguments)

        return counting

    monkeypatch.setattr(network.Network, "_counted", counted(network.Network._counted))
    monkeypatch.setattr(determinise.Determiniser, "_spend", counted(determinise.Determiniser._spend))
    with pytest.raises(SchemaError, match=r"too large|too many ways"):
        compile_schema(schema)
    assert done <= 260_000


def test_a_plain_choice_of_one_hundred_is_no_attack():
    """The limit leaves room for what people write."""
    calls = [
        {"type": "object", "properties": {"do": {"const": f"act {number}"}, "on": {}}, "required": ["do"]}
        for number in range(100)
    ]

    assert compile_schema({"oneOf": calls}).startswith(b"EBJP")
