"""Nodes of a schema as states of a network: how each kind of value is spelt, byte after byte."""

from dataclasses import dataclass

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema import numbers, strings
from edgebit.runtime.json_schema.limits import MOST_DEPTH, MOST_TEXT, MOST_UNROLLED
from edgebit.runtime.json_schema.network import Network
from edgebit.runtime.json_schema.nodes import (
    NOTHING,
    AnyOf,
    Array,
    Integer,
    Literal,
    Node,
    Number,
    Object,
    Reference,
    String,
)
from edgebit.runtime.json_schema.reader import SchemaReader, json_text

_Ruled = String | Integer | Number | Array | Object


@dataclass(frozen=True, slots=True)
class Rule:
    """A node that is called for: its states are made when they are first asked for."""

    node: _Ruled
    first: int  # set of the bytes that its text may begin with
    start: int
    end: int


class Values:
    """Makes a network of nodes, which share the rules of those that are equal."""

    def __init__(self, reader: SchemaReader, network: Network) -> None:
        self._reader = reader
        self._network = network
        self._numbers: dict[Node, int] = {}
        self.rules: list[Rule] = []
        self._text = 0

    def add(self, source: int, target: int, node: Node, trail: tuple[Reference, ...] = ()) -> None:
        """Lead from source to target by every value of the node."""
        if isinstance(node, Reference):
            if node in trail or len(trail) > MOST_DEPTH:
                raise SchemaError(f"{node.target}: refers to itself with no object or array in between")
            self.add(source, target, self._reader.resolve(node), (*trail, node))
        elif isinstance(node, AnyOf):
            for branch in node.branches:
                self.add(source, target, branch, trail)
        elif isinstance(node, Literal):
            self._text += sum(map(len, node.texts))
            if self._text > MOST_TEXT:
                raise SchemaError(f"const, enum and names have more than {MOST_TEXT} bytes together")
            self._network.texts(source, node.texts, target)
        else:
            self._network.call(source, self._rule(node), target)

    def build(self, rule: Rule) -> None:
        """Make the states of a rule. A String's own number of characters is not in them: they allow any."""
        node, start, end = rule.node, rule.start, rule.end
        if isinstance(node, Object):
            self._object(start, end, node)
        elif isinstance(node, Array):
            self._array(start, end, node)
        elif isinstance(node, Integer):
            numbers.integer(self._network, start, end, node)
        elif isinstance(node, Number):
            numbers.number(self._network, start, end, node)

    def unrolled(self, node: String) -> tuple[int, int]:
        """Start and end of states for a string that has to be told apart from another, character by character."""
        start, end = self._network.state(), self._network.state()
        if node == String():
            strings.free_string(self._network, start, end)
        elif max(node.least, node.most or 0) > MOST_UNROLLED:
            raise SchemaError(
                f"a string of up to {max(node.least, node.most or 0)} characters stands where another string may be "
                f"meant as well: at most {MOST_UNROLLED} characters can be told apart. Lower maxLength, or leave it out"
            )
        else:
            strings.unrolled_string(self._network, start, end, node.least, node.most)
        return start, end

    def _rule(self, node: _Ruled) -> int:
        if node not in self._numbers:
            first = {Object: b"{", Array: b"[", String: b'"'}.get(type(node), b"-0123456789")
            self._numbers[node] = len(self.rules)
            mask = sum(1 << byte for byte in first)
            self.rules.append(Rule(node, mask, self._network.state(), self._network.state()))
        return self._numbers[node]

    def _object(self, start: int, end: int, node: Object) -> None:
        """Every property in its order, the optional ones or not: `bare` while none was written, then `filled`."""
        net = self._network
        bare = net.text(start, b"{")
        filled = net.state()
        for each in node.properties:
            bare_after, filled_after, value = net.state(), net.state(), net.state()
            name = json_text(each.name, "properties")
            self._text += len(name)
            named = net.text(net.text(bare, name), b":", value)
            net.text(net.text(filled, b","), name + b":", named)
            self.add(value, filled_after, each.value)
            if not each.required:
                net.skip(bare, bare_after)
                net.skip(filled, filled_after)
            bare, filled = bare_after, filled_after
        closing = net.state()
        if node.rest is not None:
            names = [json_text(each.name, "properties") for each in node.properties]
            self._others(bare, filled, closing, names, node.rest)
        net.skip(bare, closing)
        net.skip(filled, closing)
        net.text(closing, b"}", end)

    def _others(self, bare: int, filled: int, closing: int, names: list[bytes], rest: Node) -> None:
        net = self._network
        name, named, value, after = net.state(), net.state(), net.state(), net.state()
        net.skip(bare, name)
        net.text(filled, b",", name)
        net.text(after, b",", name)
        if names:
            strings.other_string(net, name, named, names)
        else:
            self.add(name, named, String())
        net.text(named, b":", value)
        self.add(value, after, rest)
        net.skip(after, closing)

    def _array(self, start: int, end: int, node: Array) -> None:
        net = self._network
        most = node.most
        at, closing = net.text(start, b"["), net.state()
        count = 0
        while True:
            if count >= node.least:
                net.skip(at, closing)
            if most is not None and count >= most:
                break
            item = node.prefix[count] if count < len(node.prefix) else node.rest
            if item is None or item == NOTHING:
                break
            value, after = net.state(), net.state()
            if count:
                net.text(at, b",", value)
            else:
                net.skip(at, value)
            self.add(value, after, item)
            loops = most is None and count >= max(node.least, len(node.prefix), 1)
            if loops:
                net.skip(after, at)
                break
            at = after
            count += 1
        net.text(closing, b"]", end)
