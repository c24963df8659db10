"""Whether two schemas have no value in common, as far as that is plain to see: what oneOf asks of its branches."""

import json
from collections.abc import Callable
from decimal import Decimal

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema.limits import MOST_COMPARED, MOST_DEPTH
from edgebit.runtime.json_schema.nodes import AnyOf, Array, Integer, Literal, Node, Number, Object, Reference, String

Resolve = Callable[[Reference], Node]

_TYPE_OF_START = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
_TYPES: dict[type, str] = {String: "string", Integer: "number", Number: "number", Array: "array", Object: "object"}


class Comparison:
    """Compares nodes of one schema, in MOST_COMPARED steps in all: those that refer to themselves would never end."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._left = MOST_COMPARED
        self._literals: dict[Literal, tuple[set[str], set[str]]] = {}

    def are_apart(self, a: Node, b: Node, depth: int = 0) -> bool:
        """False where they have a value in common, and where it takes more to see that they have none.

        Raises SchemaError where it takes too many steps.
        """
        self._spend(1)
        if depth > MOST_DEPTH:
            return False
        for one, other in ((a, b), (b, a)):
            if isinstance(one, Reference):
                return self.are_apart(self._resolve(one), other, depth + 1)
            if isinstance(one, AnyOf):
                return all(self.are_apart(branch, other, depth + 1) for branch in one.branches)
        if not self._types(a) & self._types(b):
            return True
        if isinstance(a, Literal) and isinstance(b, Literal):
            return self._known(a)[1].isdisjoint(self._known(b)[1])
        if isinstance(a, Object) and isinstance(b, Object):
            return self._objects_are_apart(a, b, depth) or self._objects_are_apart(b, a, depth)
        if isinstance(a, String | Array) and type(a) is type(b):
            return (a.most is not None and a.most < b.least) or (b.most is not None and b.most < a.least)
        if isinstance(a, Integer | Number) and isinstance(b, Integer | Number):
            return _is_below(a, b) or _is_below(b, a)
        return False

    def _objects_are_apart(self, a: Object, b: Object, depth: int) -> bool:
        """By a property that `a` requires, and `b` requires with other values or does not have."""
        self._spend(len(a.properties) + len(b.properties))
        others = {each.name: each for each in b.properties}
        for each in a.properties:
            other = others.get(each.name)
            if not each.required:
                continue
            if other is None:
                if b.closed:
                    return True
            elif self.are_apart(each.value, other.value, depth + 1):
                return True
        return False

    def _types(self, node: Node) -> set[str]:
        return self._known(node)[0] if isinstance(node, Literal) else {_TYPES[type(node)]}

    def _known(self, node: Literal) -> tuple[set[str], set[str]]:
        """The types of its values, and the values in one spelling each: 1 and 1.0 are the same."""
        self._spend(len(node.texts))
        if node not in self._literals:
            types = {_TYPE_OF_START.get(text[:1].decode(), "number") for text in node.texts}
            parsed = [json.loads(text, parse_float=_whole, parse_int=_whole) for text in node.texts]
            self._literals[node] = types, {json.dumps(value, sort_keys=True, default=str) for value in parsed}
        return self._literals[node]

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise SchemaError("oneOf: its branches take too long to tell apart. Make it anyOf, or write fewer of them")


def _whole(text: str) -> Decimal:
    return Decimal(text).normalize()


def _is_below(a: Integer | Number, b: Integer | Number) -> bool:
    most, least = _most(a), _least(b)
    return most is not None and least is not None and most < least


def _most(node: Integer | Number) -> Decimal | int | None:
    if isinstance(node, Integer):
        return node.most
    return node.high.value if node.high is not None else None


def _least(node: Integer | Number) -> Decimal | int | None:
    if isinstance(node, Integer):
        return node.least
    return node.low.value if node.low is not None else None
