"""Strings as an answer spells them: UTF-8, and an escape only where JSON asks for one, the shortest there is.

So each string has one spelling, that of Python's json.dumps(ensure_ascii=False), and a character is one character
whatever its bytes. Source: RFC 8259 section 7; Unicode 16, table 3-7 (well-formed UTF-8).
"""

from collections.abc import Callable, Iterable

from edgebit.runtime.json_schema.network import Network

QUOTE = ord('"')
_TAIL = (0x80, 0xBF)

# A character: its first bytes, and the ranges of those that follow.
_CHARACTERS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0x20, 0x21),),
    ((0x23, 0x5B),),
    ((0x5D, 0x7F),),
    ((0xC2, 0xDF), _TAIL),
    ((0xE0, 0xE0), (0xA0, 0xBF), _TAIL),
    ((0xE1, 0xEC), _TAIL, _TAIL),
    ((0xED, 0xED), (0x80, 0x9F), _TAIL),
    ((0xEE, 0xEF), _TAIL, _TAIL),
    ((0xF0, 0xF0), (0x90, 0xBF), _TAIL, _TAIL),
    ((0xF1, 0xF3), _TAIL, _TAIL, _TAIL),
    ((0xF4, 0xF4), (0x80, 0x8F), _TAIL, _TAIL),
)


def _range(text: str) -> tuple[int, int]:
    return ord(text[0]), ord(text[-1])


_BACKSLASH = _range("\\")
_ESCAPES: tuple[tuple[tuple[int, int], ...], ...] = (
    *(((_BACKSLASH), _range(each)) for each in '"\\bfnrt'),
    *(
        (_BACKSLASH, _range("u"), _range("0"), _range("0"), _range(high), _range(low))
        for high, low in (("0", "07"), ("0", "b"), ("0", "ef"), ("1", "09"), ("1", "af"))
    ),
)


def character(network: Network, source: int, target: int) -> None:
    """One character of a string, but for the quote that ends it."""
    known: dict[tuple[tuple[int, int], ...], int] = {(): target}
    for ranges in (*_CHARACTERS, *_ESCAPES):
        at = source
        for depth, (low, high) in enumerate(ranges, start=1):
            # Ways with the same bytes to go share their states; escapes share their beginnings as well.
            rest = ranges[depth:]
            key = ranges[:depth] if rest and low == high and ranges[0] == _BACKSLASH else rest
            if key not in known:
                known[key] = network.state()
            if (low, high, known[key]) not in network.edges[at]:
                network.byte(at, low, high, known[key])
            at = known[key]


def free_string(network: Network, source: int, target: int) -> int:
    """Any string, its quotes included; gives the state between two of its characters."""
    between = network.state()
    network.byte(source, QUOTE, QUOTE, between)
    character(network, between, between)
    network.byte(between, QUOTE, QUOTE, target)
    return between


def unrolled_string(network: Network, source: int, target: int, least: int, most: int | None) -> None:
    """A string of least to most characters (None: any number), with states of its own for each number."""
    at = network.state()
    network.byte(source, QUOTE, QUOTE, at)
    for count in range(least if most is None else most):
        if count >= least:
            network.byte(at, QUOTE, QUOTE, target)
        following = network.state()
        character(network, at, following)
        at = following
    if most is None:
        character(network, at, at)
    network.byte(at, QUOTE, QUOTE, target)


def other_string(network: Network, source: int, target: int, names: Iterable[bytes]) -> None:
    """Any string but `names`, which are spelt as in an answer, with their quotes."""
    plain = network.state()
    character(network, plain, plain)
    network.byte(plain, QUOTE, QUOTE, target)

    known: dict[tuple[int, tuple[bytes, ...]], int] = {}

    def beside(state: int, rests: tuple[bytes, ...]) -> int:
        """A twin of `state` on the way through a string that may yet become one of those with these rests."""
        if not rests:
            return state
        key = (state, rests)
        if key not in known:
            known[key] = network.state()
            open_twins.append(key)
        return known[key]

    open_twins: list[tuple[int, tuple[bytes, ...]]] = []
    network.byte(source, QUOTE, QUOTE, beside(plain, tuple(sorted({name[1:] for name in names}))))
    while open_twins:
        state, rests = open_twins.pop()
        twin = known[state, rests]
        for low, high, following in tuple(network.edges[state]):
            _split_edge(network, twin, (low, high, following), rests, target, beside)


def _split_edge(
    network: Network,
    twin: int,
    edge: tuple[int, int, int],
    rests: tuple[bytes, ...],
    target: int,
    beside: Callable[[int, tuple[bytes, ...]], int],
) -> None:
    """The edge for the twin: bytes that a name goes on with lead to twins, all others where the edge does."""
    low, high, following = edge
    at = low
    for byte in sorted({rest[0] for rest in rests if rest and low <= rest[0] <= high}):
        if at < byte:
            network.byte(twin, at, byte - 1, following)
        rests_after = tuple(rest[1:] for rest in rests if rest[:1] == bytes([byte]))
        if following != target:
            network.byte(twin, byte, byte, beside(following, rests_after))
        at = byte + 1
    if at <= high:
        network.byte(twin, at, high, following)
