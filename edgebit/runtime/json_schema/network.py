"""The states that a value's bytes lead through: a network with choices still open, which `determinise` settles.

A rule is a part of it that several places share: a call of it stands for one JSON value, and its return is settled by
the value's own end. The first byte of a rule's text is never a call of another.
"""

from collections.abc import Iterable

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema.limits import MOST_EDGES, MOST_NETWORK_EDGES, MOST_NETWORK_STATES, MOST_STATES

Edge = tuple[int, int, int]  # from byte, to byte, the state that they lead to
_TOO_LARGE = "the schema is too large for a device: more than {} states or {} steps between them"
TOO_LARGE = _TOO_LARGE.format(MOST_STATES, MOST_EDGES)


class Network:
    """States are numbers; `end` of a rule has nothing behind it."""

    def __init__(self) -> None:
        self.edges: list[list[Edge]] = []
        self.skips: list[list[int]] = []  # states that are reached without a byte
        self.calls: list[list[tuple[int, int]]] = []  # rules, and the state after each
        self._count = 0

    def state(self) -> int:
        """A new one. Raises SchemaError where there are too many."""
        self.edges.append([])
        self.skips.append([])
        self.calls.append([])
        if len(self.edges) > MOST_NETWORK_STATES:
            raise SchemaError(_TOO_LARGE.format(MOST_NETWORK_STATES, MOST_NETWORK_EDGES))
        return len(self.edges) - 1

    def byte(self, source: int, low: int, high: int, target: int) -> None:
        """Any byte of low .. high leads from source to target."""
        self.edges[source].append((low, high, target))
        self._counted()

    def skip(self, source: int, target: int) -> None:
        """Whoever is in source may as well be in target."""
        self.skips[source].append(target)
        self._counted()

    def call(self, source: int, rule: int, target: int) -> None:
        """A value of the rule leads from source to target."""
        self.calls[source].append((rule, target))
        self._counted()

    def text(self, source: int, text: bytes, target: int | None = None) -> int:
        """These bytes, one after the other, lead from source to target (None: a new state), which is given back."""
        for at, byte in enumerate(text):
            last = at == len(text) - 1
            following = target if last and target is not None else self.state()
            self.byte(source, byte, byte, following)
            source = following
        return source

    def texts(self, source: int, texts: Iterable[bytes], target: int) -> None:
        """Each of these texts leads from source to target; none is empty."""
        for text in texts:
            self.text(source, text, target)

    def _counted(self) -> None:
        self._count += 1
        if self._count > MOST_NETWORK_EDGES:
            raise SchemaError(_TOO_LARGE.format(MOST_NETWORK_STATES, MOST_NETWORK_EDGES))
