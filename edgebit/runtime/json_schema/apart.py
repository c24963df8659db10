"""Whether two schemas have no value in common, as far as that is plain to see: what oneOf asks of its branches."""

import json
from collections.abc import Callable
from decimal import Decimal

from edgebit.runtime.json_schema.limits import MOST_DEPTH
from edgebit.runtime.json_schema.nodes import AnyOf, Array, Integer, Literal, Node, Number, Object, Reference, String

Resolve = Callable[[Reference], Node]

_TYPE_OF_START = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
_TYPES: dict[type, str] = {String: "string", Integer: "number", Number: "number", Array: "array", Object: "object"}


def are_apart(a: Node, b: Node, resolve: Resolve, depth: int = 0) -> bool:
    """False where they have a value in common, and where it takes more to see that they have none."""
    if depth > MOST_DEPTH:
        return False
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Reference):
            return are_apart(resolve(one), other, resolve, depth + 1)
        if isinstance(one, AnyOf):
            return all(are_apart(branch, other, resolve, depth + 1) for branch in one.branches)
    if not _types(a) & _types(b):
        return True
    if isinstance(a, Literal) and isinstance(b, Literal):
        return not _values(a) & _values(b)
    if isinstance(a, Object) and isinstance(b, Object):
        return _objects_are_apart(a, b, resolve, depth) or _objects_are_apart(b, a, resolve, depth)
    if isinstance(a, String | Array) and type(a) is type(b):
        return (a.most is not None and a.most < b.least) or (b.most is not None and b.most < a.least)
    if isinstance(a, Integer | Number) and isinstance(b, Integer | Number):
        return _is_below(a, b) or _is_below(b, a)
    return False


def _objects_are_apart(a: Object, b: Object, resolve: Resolve, depth: int) -> bool:
    """By a property that `a` requires, and `b` requires with other values or does not have."""
    others = {each.name: each for each in b.properties}
    for each in a.properties:
        other = others.get(each.name)
        if not each.required:
            continue
        if other is None:
            if b.closed:
                return True
        elif are_apart(each.value, other.value, resolve, depth + 1):
            return True
    return False


def _types(node: Node) -> set[str]:
    if isinstance(node, Literal):
        return {_TYPE_OF_START.get(text[:1].decode(), "number") for text in node.texts}
    return {_TYPES[type(node)]}


def _values(node: Literal) -> set[str]:
    """The values in one spelling each: 1 and 1.0 are the same."""
    parsed = [json.loads(text, parse_float=_whole, parse_int=_whole) for text in node.texts]
    return {json.dumps(value, sort_keys=True, default=str) for value in parsed}


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
