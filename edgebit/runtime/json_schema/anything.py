"""Any JSON: what a schema that says nothing allows, and mode "json_object". Nested so deep and no deeper."""

from edgebit.runtime.json_schema.limits import ANY_DEPTH
from edgebit.runtime.json_schema.nodes import AnyOf, Array, Literal, Number, Object, Reference, String

_SCALARS = (String(), Number(), Literal((b"false", b"true", b"null")))


def anything(depth: int) -> AnyOf:
    """Any value of at most `depth` arrays and objects within one another."""
    if not depth:
        return AnyOf(_SCALARS)
    below = Reference(depth - 1)
    return AnyOf((*_SCALARS, Object(rest=below), Array(rest=below)))


ANYTHING = anything(ANY_DEPTH)
ANY_OBJECT = Object(rest=Reference(ANY_DEPTH - 1))
