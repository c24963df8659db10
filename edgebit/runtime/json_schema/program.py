"""The program that eb_constraint_open() takes: states and edges as they lie in its memory (docs/json-schema.md)."""

import struct

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema.determinise import NO_RULE, State
from edgebit.runtime.json_schema.limits import MOST_EDGES, MOST_STATES
from edgebit.runtime.json_schema.network import TOO_LARGE

MAGIC = b"EBJP"
VERSION = 1

_HEADER = struct.Struct("<4sIIII")
_STATE = struct.Struct("<IHH")
_EDGE = struct.Struct("<BBHHH")
_COUNT = struct.Struct("<II")

_INSIDE, _END, _FIRST_COUNT = 0, 1, 2
_NO_CALLEE = 0xFFFF
_NO_MOST = 0xFFFFFFFF


def pack(states: list[State]) -> bytes:
    """The bytes of a program that begins in the first state. Raises SchemaError where there are too many."""
    n_edges = sum(len(state.edges) for state in states)
    if len(states) > MOST_STATES or n_edges > MOST_EDGES:
        raise SchemaError(TOO_LARGE)
    counts = sorted(
        {(count[0], _NO_MOST if count[1] is None else count[1]) for state in states if (count := state.count)}
    )
    rows: list[bytes] = []
    edges: list[bytes] = []
    for state in states:
        kind = _END if state.is_end else _INSIDE
        if state.count is not None:
            kind = _FIRST_COUNT + counts.index(_count(*state.count))
        rows.append(_STATE.pack(len(edges), len(state.edges), kind))
        edges += [
            _EDGE.pack(low, high, 0, target, _NO_CALLEE if callee == NO_RULE else callee)
            for low, high, callee, target in state.edges
        ]
    header = _HEADER.pack(MAGIC, VERSION, len(states), len(edges), len(counts))
    return b"".join([header, *rows, *edges, *(_COUNT.pack(*count) for count in counts)])


def _count(least: int, most: int | None) -> tuple[int, int]:
    return least, _NO_MOST if most is None else most
