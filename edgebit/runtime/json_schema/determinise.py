"""A network without choices: for each state and byte one way on, by following all open ones at once.

Where only one rule can be meant, it stays a call. Where several can, or a rule and other bytes, all of them are
followed at once, each with what it has to go back to (subset construction; Rabin and Scott 1959), until they part.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema.limits import MOST_EDGES, MOST_NESTED, MOST_STATES, MOST_WORK
from edgebit.runtime.json_schema.network import TOO_LARGE, Network
from edgebit.runtime.json_schema.nodes import String
from edgebit.runtime.json_schema.strings import free_string
from edgebit.runtime.json_schema.values import Rule, Values

Returns = tuple[int, "Returns"] | tuple[()]  # states to go back to, the next one first
Item = tuple[int, Returns]  # a state of the network, and what follows the value that it is in

NO_RULE = -1


@dataclass(slots=True)
class State:
    """One of the program's: at most one edge for each byte."""

    edges: list[tuple[int, int, int, int]] = field(default_factory=list)  # low, high, start of the callee, target
    is_end: bool = False  # of its rule
    count: tuple[int, int | None] | None = None  # between two characters of a string of so many


class Determiniser:
    """Turns rules into states, those that are called for from the root on."""

    def __init__(self, values: Values, network: Network) -> None:
        self._values = values
        self._network = network
        self.states: list[State] = []
        self._starts: dict[int, int] = {}  # of rules
        self._productive: set[int] = set()
        self._ends: set[int] = set()
        self._numbers: dict[tuple[int, frozenset[Item]], int] = {}
        self._open: list[tuple[int, int, list[Item]]] = []
        self._unrolled: dict[int, tuple[int, int]] = {}
        self._edges = self._work = 0

    def run(self, start: int, end: int) -> int:
        """The state that texts from `start` to `end` of the network begin in.

        Raises SchemaError where there are none, or too much is needed for them.
        """
        built = 0
        while built < len(self._values.rules):
            self._values.build(self._values.rules[built])
            built += 1
        self._ends = {end, *(rule.end for rule in self._values.rules)}
        self._find_productive()
        if start not in self._productive:
            raise SchemaError("no value can be what the schema asks for")
        first = self._state_of(NO_RULE, [(start, ())])
        while self._open:
            number, rule, items = self._open.pop()
            self._expand(number, rule, items)
        return first

    # ---- states from which an end can be reached ----

    def _find_productive(self) -> None:
        net, rules = self._network, self._values.rules
        before: list[list[int]] = [[] for _ in net.edges]
        callers: dict[int, list[tuple[int, int]]] = {}
        for source in range(len(net.edges)):
            for _, _, target in net.edges[source]:
                before[target].append(source)
            for target in net.skips[source]:
                before[target].append(source)
            for rule, target in net.calls[source]:
                callers.setdefault(rules[rule].start, []).append((source, target))
                callers.setdefault(target, []).append((source, rules[rule].start))
        found = self._productive
        fresh = list(self._ends) + [rule.start for rule in rules if _is_satisfiable_string(rule)]
        while fresh:
            state = fresh.pop()
            if state in found:
                continue
            found.add(state)
            fresh += before[state]
            fresh += [source for source, other in callers.get(state, ()) if other in found]

    # ---- subsets ----

    def _closure(self, items: Iterable[Item]) -> set[Item]:
        """All that the items are, without a byte, as far as an end can be reached from it."""
        found: set[Item] = set()
        fresh = list(items)
        while fresh:
            item = fresh.pop()
            state, returns = item
            if item in found or state not in self._productive:
                continue
            self._spend()
            found.add(item)
            fresh += [(target, returns) for target in self._network.skips[state]]
            if returns and state in self._ends:
                fresh.append(returns)
        return found

    def _state_of(self, rule: int, items: Iterable[Item]) -> int:
        closed = self._closure(items)
        # Only those count that a byte or a call leads on from, and the end.
        net = self._network
        kept = frozenset(
            item
            for item in closed
            if net.edges[item[0]] or net.calls[item[0]] or (not item[1] and item[0] in self._ends)
        )
        key = (rule, kept)
        if key not in self._numbers:
            if len(self.states) >= MOST_STATES:
                raise SchemaError(TOO_LARGE)
            self._numbers[key] = len(self.states)
            self.states.append(State())
            self._open.append((len(self.states) - 1, rule, list(kept)))
        return self._numbers[key]

    def _start_of(self, rule: int) -> int:
        if rule not in self._starts:
            node = self._values.rules[rule].node
            if isinstance(node, String):
                self._starts[rule] = self._string(node)
            else:
                self._starts[rule] = self._state_of(rule, [(self._values.rules[rule].start, ())])
        return self._starts[rule]

    def _string(self, node: String) -> int:
        """States of a string that is counted as it is written, apart from all others."""
        own = Network()
        start, end = own.state(), own.state()
        between = free_string(own, start, end)
        base = len(self.states)
        if base + len(own.edges) > MOST_STATES:
            raise SchemaError(TOO_LARGE)
        for edges in own.edges:
            self.states.append(State([(low, high, NO_RULE, base + target) for low, high, target in sorted(edges)]))
        self.states[base + end].is_end = True
        if node != String():
            self.states[base + between].count = (node.least, node.most)
        return base + start

    def _expand(self, number: int, rule: int, items: list[Item]) -> None:
        state = self.states[number]
        state.is_end = any(not returns and at in self._ends for at, returns in items)
        plain, calls = self._split(items)
        for callee, targets in calls.items():
            target = self._state_of(rule, targets)
            for low, high in _runs(self._values.rules[callee].first):
                state.edges.append((low, high, self._start_of(callee), target))
        for low, high, followers in _segments(plain):
            state.edges.append((low, high, NO_RULE, self._state_of(rule, followers)))
        state.edges.sort()
        self._edges += len(state.edges)
        if self._edges > MOST_EDGES:
            raise SchemaError(TOO_LARGE)

    def _split(self, items: list[Item]) -> tuple[list[tuple[int, int, Item]], dict[int, list[Item]]]:
        """Steps by bytes, and calls of rules that begin with other bytes; rules that do not are entered."""
        plain: list[tuple[int, int, Item]] = []
        calls: dict[int, list[Item]] = {}
        bytes_taken = 0
        fresh = set(items)
        while fresh:
            for at, returns in fresh:
                for low, high, target in self._network.edges[at]:
                    self._spend()
                    if target in self._productive:
                        plain.append((low, high, (target, returns)))
                        bytes_taken |= (1 << (high + 1)) - (1 << low)
                for callee, target in self._network.calls[at]:
                    self._spend()
                    if target in self._productive and self._values.rules[callee].start in self._productive:
                        calls.setdefault(callee, []).append((target, returns))
            fresh = set()
            for callee in self._disputed(bytes_taken, calls):
                start = self._entered(callee)
                fresh |= self._closure((start, self._pushed(item)) for item in calls.pop(callee))
        return plain, calls

    def _disputed(self, bytes_taken: int, calls: dict[int, list[Item]]) -> list[int]:
        rules = self._values.rules
        once = twice = 0
        for callee in calls:
            twice |= once & rules[callee].first
            once |= rules[callee].first
        return [callee for callee in calls if rules[callee].first & (bytes_taken | twice)]

    def _pushed(self, item: Item) -> Returns:
        depth, rest = 1, item[1]
        while rest:
            depth, rest = depth + 1, rest[1]
        if depth > MOST_NESTED:
            raise SchemaError(
                f"branches begin alike for more than {MOST_NESTED} values within one another: tell them apart earlier, "
                "as by a const in the first property"
            )
        return item

    def _entered(self, callee: int) -> int:
        rule = self._values.rules[callee]
        if not isinstance(rule.node, String):
            return rule.start
        if callee not in self._unrolled:
            begin = len(self._network.edges)
            start, end = self._values.unrolled(rule.node)
            self._productive.update(range(begin, len(self._network.edges)))
            self._ends.add(end)
            self._unrolled[callee] = start, end
        return self._unrolled[callee][0]

    def _spend(self) -> None:
        self._work += 1
        if self._work > MOST_WORK:
            raise SchemaError("the schema has too many ways to be followed at once: tell its branches apart earlier")


def _is_satisfiable_string(rule: Rule) -> bool:
    node = rule.node
    return isinstance(node, String) and (node.most is None or node.least <= node.most)


def _runs(mask: int) -> list[tuple[int, int]]:
    """The bytes of a set, as ranges."""
    runs: list[tuple[int, int]] = []
    for byte in range(256):
        if mask >> byte & 1:
            if runs and runs[-1][1] == byte - 1:
                runs[-1] = (runs[-1][0], byte)
            else:
                runs.append((byte, byte))
    return runs


def _segments(edges: list[tuple[int, int, Item]]) -> list[tuple[int, int, list[Item]]]:
    """Ranges of bytes that lead to the same items, of ranges that overlap."""
    if len(edges) == 1:
        low, high, item = edges[0]
        return [(low, high, [item])]
    cuts = sorted({low for low, _, _ in edges} | {high + 1 for _, high, _ in edges})
    inside: dict[int, list[Item]] = {cut: [] for cut in cuts}
    place = {cut: at for at, cut in enumerate(cuts)}
    for low, high, item in edges:
        for cut in cuts[place[low] : place[high + 1]]:
            inside[cut].append(item)
    return [(cuts[at], cuts[at + 1] - 1, inside[cuts[at]]) for at in range(len(cuts) - 1) if inside[cuts[at]]]
