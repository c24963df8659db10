"""Reads a JSON Schema (a subset of draft 2020-12, docs/json-schema.md) into nodes; refuses what it does not know."""

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema.anything import ANY_OBJECT, ANYTHING, anything
from edgebit.runtime.json_schema.apart import Comparison
from edgebit.runtime.json_schema.limits import MOST_DEPTH, MOST_DIGITS, MOST_ITEMS, MOST_LENGTH, MOST_NODES
from edgebit.runtime.json_schema.nodes import (
    NOTHING,
    AnyOf,
    Array,
    Bound,
    Integer,
    Literal,
    Node,
    Number,
    Object,
    Property,
    Reference,
    String,
)

# They say nothing about what a value may be.
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default",
                          "examples", "deprecated", "readOnly", "writeOnly"})  # fmt: skip
_KEYWORDS_OF_TYPE: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
_OF_TYPES = frozenset().union(*_KEYWORDS_OF_TYPE.values())
_CHOICES = ("$ref", "anyOf", "oneOf", "allOf", "enum", "const")


def json_text(value: object, pointer: str) -> bytes:
    """A value as an answer spells it, without white space. Raises SchemaError where JSON cannot say it."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"{pointer}: this value has no JSON text: {error}") from error


class SchemaReader:
    """One schema, read piece by piece: what $ref points to only when asked for, so it may point to itself."""

    def __init__(self, schema: object) -> None:
        self._schema = schema
        self._known: dict[str, Node] = {}
        self._count = 0
        self._exclusive: list[tuple[str, list[Node]]] = []

    def resolve(self, reference: Reference) -> Node:
        """What is referred to; SchemaError where there is nothing."""
        target = reference.target
        if isinstance(target, int):
            return anything(target)
        if target not in self._known:
            self._known[target] = self._read(self._find(target), target, 0)
        return self._known[target]

    def check(self) -> None:
        """Hold the branches of each oneOf to its promise that a value is of one branch only.

        Raises SchemaError where that is not plain to see.
        """
        comparison = Comparison(self.resolve)
        while self._exclusive:
            pointer, branches = self._exclusive.pop()
            for i, first in enumerate(branches):
                for j, second in enumerate(branches[:i]):
                    if not comparison.are_apart(first, second):
                        raise SchemaError(
                            f"{pointer}: oneOf is supported where a value is plainly of one branch only, as by a const "
                            f"or a type; a value may be of both {j} and {i}. Make it anyOf, or tell them apart"
                        )

    def _find(self, pointer: str) -> object:
        at = self._schema
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(at, Mapping) and key in at:
                at = at[key]
            elif isinstance(at, list) and key.isdecimal() and int(key[:9]) < len(at):
                at = at[int(key)]
            else:
                raise SchemaError(f"$ref: there is nothing at {pointer!r}")
        return at

    def _read(self, schema: object, pointer: str, depth: int) -> Node:
        self._count += 1
        if depth > MOST_DEPTH:
            raise SchemaError(f"{pointer}: more than {MOST_DEPTH} schemas deep")
        if self._count > MOST_NODES:
            raise SchemaError(f"{pointer}: more than {MOST_NODES} schemas in one")
        if schema is True:
            return ANYTHING
        if schema is False:
            return NOTHING
        if not isinstance(schema, Mapping):
            raise SchemaError(f"{pointer}: a schema is an object, true or false, not {type(schema).__name__}")
        return _Place(self, schema, pointer, depth).node()

    def note_exclusive(self, pointer: str, branches: list[Node]) -> None:
        """Note branches of a oneOf, for check()."""
        self._exclusive.append((pointer, branches))

    def below(self, place: "_Place", schema: object, *parts: str | int) -> Node:
        """The node of a schema within `place`."""
        steps = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
        return self._read(schema, place.pointer + steps, place.depth + 1)


class _Place:
    """A schema that is a JSON object, and where it stands."""

    def __init__(self, reader: SchemaReader, schema: Mapping[str, Any], pointer: str, depth: int) -> None:
        self._reader = reader
        self._schema = schema
        self.pointer = pointer
        self.depth = depth

    def node(self) -> Node:
        said = set(self._schema) - _ANNOTATIONS
        unknown = said - _OF_TYPES - set(_CHOICES) - {"type"}
        if unknown:
            raise self._refuse(min(unknown, key=str), "is not supported. docs/json-schema.md lists what is")
        choices = [each for each in _CHOICES if each in said]
        if not choices:
            return self._of_types(self._types(said), said)
        choice = choices[0]
        beside = said - {choice} - ({"type"} if choice in ("enum", "const") else set())
        if beside:
            raise self._refuse(min(beside), f"beside {choice} is not supported: write it into the branches")
        return self._of_choice(choice, self._schema[choice])

    # ---- choices ----

    def _of_choice(self, choice: str, content: object) -> Node:
        if choice == "$ref":
            if not isinstance(content, str) or not (content == "#" or content.startswith("#/")):
                raise self._refuse("$ref", f"must point into this schema, as '#/$defs/NAME' does, not {content!r}")
            return Reference(content)
        if choice == "const":
            return self._literals([content])
        if not isinstance(content, list) or not content:
            raise self._refuse(choice, "must be a list with something in it")
        if choice == "enum":
            return self._literals(content)
        if choice == "allOf" and len(content) > 1:
            raise self._refuse("allOf", "is supported with one schema only: write what it means as one")
        branches = [self._reader.below(self, each, choice, i) for i, each in enumerate(content)]
        if choice == "oneOf":
            self._reader.note_exclusive(self.pointer, branches)
        return branches[0] if len(branches) == 1 else AnyOf(tuple(branches))

    def _literals(self, values: list[Any]) -> Node:
        if "type" in self._schema:
            types = self._types({"type"})
            values = [value for value in values if any(_is_of_type(value, each) for each in types)]
        return Literal(tuple(dict.fromkeys(json_text(value, self.pointer) for value in values)))

    # ---- types ----

    def _types(self, said: set[str]) -> list[str]:
        if "type" not in said:
            implied = [name for name, keywords in _KEYWORDS_OF_TYPE.items() if keywords & said]
            if not implied:
                return list(_KEYWORDS_OF_TYPE)
            raise self._refuse("type", f"is missing: {min(said)} alone says nothing of values of other types")
        types = self._schema["type"]
        types = [types] if isinstance(types, str) else types
        if not isinstance(types, list) or not types or not all(isinstance(each, str) for each in types):
            raise self._refuse("type", "must be a name or a list of names")
        for each in types:
            if each not in _KEYWORDS_OF_TYPE:
                raise self._refuse("type", f"{each!r} is none of {', '.join(_KEYWORDS_OF_TYPE)}")
        return types

    def _of_types(self, types: list[str], said: set[str]) -> Node:
        if not said:
            return ANYTHING
        readers: dict[str, Callable[[], Node]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda: Literal((b"false", b"true")),
            "null": lambda: Literal((b"null",)),
        }
        branches = tuple(readers[each]() for each in dict.fromkeys(types))
        return branches[0] if len(branches) == 1 else AnyOf(branches)

    def _object(self) -> Node:
        given = self._schema.get("properties", {})
        required = self._schema.get("required", [])
        if not isinstance(given, Mapping):
            raise self._refuse("properties", "must be an object")
        if not isinstance(required, list) or not all(isinstance(each, str) for each in required):
            raise self._refuse("required", "must be a list of names")
        names = frozenset(required)
        rest = self._other_properties(given)
        if rest == ANYTHING and not given and not required:
            return ANY_OBJECT
        properties = [
            Property(name, self._reader.below(self, value, "properties", name), name in names)
            for name, value in given.items()
        ]
        for name in dict.fromkeys(required):
            if name not in given:
                properties.append(Property(name, rest if rest is not None else NOTHING, True))
        for each in properties:
            json_text(each.name, self.pointer)
        return Object(tuple(properties), rest, closed=rest is None and "additionalProperties" in self._schema)

    def _other_properties(self, given: Mapping[str, Any]) -> Node | None:
        if "additionalProperties" not in self._schema:
            return None if given else ANYTHING
        rest = self._reader.below(self, self._schema["additionalProperties"], "additionalProperties")
        return None if rest == NOTHING else rest

    def _array(self) -> Node:
        prefix = self._schema.get("prefixItems", [])
        if not isinstance(prefix, list):
            raise self._refuse("prefixItems", "must be a list of schemas")
        nodes = tuple(self._reader.below(self, each, "prefixItems", i) for i, each in enumerate(prefix))
        if "items" in self._schema:
            rest = self._reader.below(self, self._schema["items"], "items")
        else:
            rest = NOTHING if prefix else ANYTHING
        least, most = self._lengths("minItems", "maxItems", MOST_ITEMS)
        if rest == NOTHING:
            most = len(nodes) if most is None else min(most, len(nodes))
        return Array(nodes, None if rest == NOTHING else rest, least, most)

    def _string(self) -> Node:
        return String(*self._lengths("minLength", "maxLength", MOST_LENGTH))

    def _lengths(self, least_name: str, most_name: str, limit: int) -> tuple[int, int | None]:
        found: list[int | None] = []
        for name in (least_name, most_name):
            value = self._schema.get(name)
            if name in self._schema:
                if isinstance(value, float) and value.is_integer():
                    value = int(value)
                if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                    raise self._refuse(name, f"must be a whole number from 0 on, not {value!r:.40}")
                if value > limit:
                    raise self._refuse(name, f"is larger than {limit}")
            found.append(value)
        return found[0] or 0, found[1]

    def _integer(self) -> Node:
        low, high = self._bounds()
        least = most = None
        if low is not None:
            least = math.ceil(low.value)
            least += low.excluded and least == low.value
        if high is not None:
            most = math.floor(high.value)
            most -= high.excluded and most == high.value
        return Integer(least, most)

    def _number(self) -> Node:
        return Number(*self._bounds())

    def _bounds(self) -> tuple[Bound | None, Bound | None]:
        lows = [Bound(self._decimal(name), name != "minimum") for name in ("minimum", "exclusiveMinimum")
                if name in self._schema]  # fmt: skip
        highs = [Bound(self._decimal(name), name != "maximum") for name in ("maximum", "exclusiveMaximum")
                 if name in self._schema]  # fmt: skip
        low = max(lows, key=lambda each: (each.value, each.excluded), default=None)
        high = min(highs, key=lambda each: (each.value, not each.excluded), default=None)
        return low, high

    def _decimal(self, name: str) -> Decimal:
        value = self._schema[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._refuse(name, "must be a number")
        if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
            raise self._refuse(name, f"has more than {MOST_DIGITS} digits")
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        exponent = number.normalize().as_tuple().exponent
        if abs(number) >= 10**MOST_DIGITS or (isinstance(exponent, int) and -exponent > MOST_DIGITS):
            raise self._refuse(name, f"has more than {MOST_DIGITS} digits before or after the point")
        return number

    def _refuse(self, keyword: str, why: str) -> SchemaError:
        return SchemaError(f"{self.pointer}: {keyword!s:.60} {why}")


def _is_of_type(value: object, name: str) -> bool:
    if name == "integer":
        return not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict, "array": list, "string": str, "number": (int, float), "boolean": bool, "null": type(None),
    }  # fmt: skip
    return isinstance(value, kinds[name]) and (name == "boolean" or not isinstance(value, bool))
