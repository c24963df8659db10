"""Whether bytes are the beginning of an answer that a schema allows: every way is tried, on the schema itself.

Shares nothing with what it checks: no states, no program. docs/json-schema.md says how values are spelt.
"""

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

ANY_DEPTH = 16
DIGITS = 15
ESCAPES = [json.dumps(chr(code))[1:-1].encode() for code in [*range(0x20), 0x22, 0x5C]]

Found = tuple[set[int], bool]  # where a value may have ended; whether one may still be going on at the text's end


@dataclass
class Part:
    """A piece of an answer: how it is found in a text, and whether there is any."""

    find: Callable[[bytes, int], Found]
    possible: Callable[[], bool] = lambda: True


def in_a_row(parts: list[Part]) -> Part:
    def find(text: bytes, at: int) -> Found:
        ends, going_on = {at}, False
        for place, part in enumerate(parts):
            found = [part.find(text, end) for end in ends]
            if any(more for _, more in found) and all(each.possible() for each in parts[place + 1 :]):
                going_on = True
            ends = set().union(*(each for each, _ in found)) if found else set()
        return ends, going_on

    return Part(find, lambda: all(part.possible() for part in parts))


def either(parts: list[Part]) -> Part:
    def find(text: bytes, at: int) -> Found:
        found = [part.find(text, at) for part in parts]
        return set().union(*(ends for ends, _ in found)) if found else set(), any(more for _, more in found)

    return Part(find, lambda: any(part.possible() for part in parts))


def exactly(wanted: bytes) -> Part:
    def find(text: bytes, at: int) -> Found:
        if text.startswith(wanted, at):
            return {at + len(wanted)}, False
        return set(), wanted.startswith(text[at:])

    return Part(find)


def spelled(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


# ---- strings ----


def string(least: int = 0, most: int | None = None, but: frozenset[bytes] = frozenset()) -> Part:
    def find(text: bytes, at: int) -> Found:
        if at == len(text):
            return set(), True
        if text[at] != ord('"'):
            return set(), False
        begin, at, count = at, at + 1, 0
        while at < len(text) and text[at] != ord('"'):
            if most is not None and count == most:
                return set(), False
            size = character(text, at)
            if size is None:
                return set(), True
            if size == 0:
                return set(), False
            at, count = at + size, count + 1
        if at == len(text):
            return set(), True
        ended = count >= least and text[begin : at + 1] not in but
        return ({at + 1} if ended else set()), False

    return Part(find, lambda: most is None or least <= most)


def character(text: bytes, at: int) -> int | None:
    """The size of the character there; 0: it is none, None: not all of it is there."""
    rest = text[at : at + 6]
    if rest[:1] == b"\\":
        whole = [each for each in ESCAPES if len(each) > 1 and rest.startswith(each)]
        if whole:
            return len(whole[0])
        return None if len(text) - at < 6 and any(each.startswith(rest) for each in ESCAPES) else 0
    if rest[0] < 0x20:
        return 0
    for size in range(1, 5):
        piece = rest[:size]
        if len(piece) < size:
            return None if is_begun(piece) else 0
        try:
            piece.decode()
        except UnicodeDecodeError:
            continue
        return size
    return 0


def is_begun(piece: bytes) -> bool:
    """Whether bytes that are no character may become one."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        if decoder.decode(piece):
            return False
    except UnicodeDecodeError:
        return False
    tails = [b"\x80", b"\x90", b"\xa0", b"\xbf"]
    return any(
        valid(piece + rest) for rest in [*tails, *(a + b"\x80" for a in tails), *(a + b"\x80\x80" for a in tails)]
    )


def valid(piece: bytes) -> bool:
    try:
        return len(piece.decode()) == 1
    except UnicodeDecodeError:
        return False


# ---- numbers ----


def longest_match(pattern: str, text: bytes, at: int) -> bytes:
    return re.compile(pattern.encode()).match(text, at).group()


def numbers(candidates: str, is_whole: Callable[[bytes], bool], is_begun: Callable[[bytes], bool]) -> Part:
    """Numbers among the texts of these characters."""

    def find(text: bytes, at: int) -> Found:
        piece = longest_match(f"[{candidates}]*", text, at)
        ends = {at + size for size in range(1, len(piece) + 1) if is_whole(piece[:size])}
        return ends, at + len(piece) == len(text) and is_begun(piece)

    return Part(find, lambda: is_begun(b""))


def integer(least: int | None, most: int | None) -> Part:
    ends = [len(str(abs(each))) + 1 for each in (least, most) if each is not None]
    limit = 10 ** max([DIGITS, *ends]) - 1
    low, high = -limit if least is None else least, limit if most is None else most

    def is_whole(piece: bytes) -> bool:
        return re.fullmatch(rb"0|-?[1-9][0-9]*", piece) is not None and low <= int(piece) <= high

    def is_begun(piece: bytes) -> bool:
        """Whether the piece or digits after it are within: by the interval of what k more digits may give."""
        if piece == b"":
            return low <= high
        if piece == b"-":
            return low <= high and low < 0
        if not re.fullmatch(rb"-?[1-9][0-9]*|0", piece):
            return False
        if piece == b"0":
            return low <= 0 <= high
        sign, digits = (-1, int(piece[1:])) if piece[:1] == b"-" else (1, int(piece))
        for more in range(45):
            first, last = digits * 10**more, (digits + 1) * 10**more - 1
            if max(low, min(sign * first, sign * last)) <= min(high, max(sign * first, sign * last)):
                return True
        return False

    return numbers("-0-9", is_whole, is_begun)


def bounded_number(low: tuple[Decimal, bool] | None, high: tuple[Decimal, bool] | None) -> Part:
    """Decimals without an exponent; each bound with whether it is left out itself."""

    def places_with(positive: bool) -> int:
        given = [each[0] for each in (low, high) if each is not None]
        mine = [abs(each) for each in given if (each >= 0) == positive or each == 0] or [Decimal(0)]
        if (positive and (low is None or low[0] < 0)) or (not positive and (high is None or high[0] >= 0)):
            mine.append(Decimal(0))
        whole = max(len(str(int(each))) for each in mine)
        return max(DIGITS - whole, 1, *(max(-int(each.normalize().as_tuple().exponent), 0) for each in mine))

    def whole_limit(positive: bool) -> int:
        mine = [abs(each[0]) for each in (low, high) if each is not None and (each[0] >= 0) == positive]
        return 10 ** max([DIGITS, *(len(str(int(each))) + 1 for each in mine)])

    def within(value: Fraction) -> bool:
        above = low is None or value > Fraction(low[0]) or (value == Fraction(low[0]) and not low[1])
        below = high is None or value < Fraction(high[0]) or (value == Fraction(high[0]) and not high[1])
        return above and below

    def is_whole(piece: bytes) -> bool:
        if not re.fullmatch(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?", piece):
            return False
        positive = piece[:1] != b"-"
        fraction = piece.partition(b".")[2]
        value = Fraction(piece.decode())
        if len(fraction) > places_with(positive) or abs(value) >= whole_limit(positive):
            return False
        return within(value) and (positive or value != 0)

    def is_begun(piece: bytes) -> bool:
        """Tries what may come next, digit by digit: the lowest and the highest, and what is near the bounds."""
        if is_whole(piece):
            return True
        tried = {piece}
        for _, bound in (("low", low), ("high", high)):
            if bound is None:
                continue
            near = [bound[0] + step.scaleb(-places) for step in map(Decimal, (-1, 0, 1)) for places in range(DIGITS)]
            tried |= {format(each, "f").encode() for each in near}
            tried |= {format(each, "f").encode() + b".0" for each in near}
        tails = [b"", b".", b"0", b"5", b"9", b".0", b".5", b".9"]
        tails += [b"0" * n + end for n in range(15) for end in (b"1", b"", b".0", b".5")]
        tails += [b"." + b"0" * n + b"1" for n in range(15)] + [b"." + b"9" * n for n in range(1, 15)]
        tails += [b"9" * n for n in range(15)]
        heads = [piece] if piece not in (b"", b"-") else [piece + bytes([digit]) for digit in range(0x30, 0x3A)]
        if piece == b"":
            heads += [b"-" + bytes([digit]) for digit in range(0x30, 0x3A)]
        tried |= {head + tail for head in heads for tail in tails}
        return any(each.startswith(piece) and is_whole(each) for each in tried)

    return numbers("-0-9.", is_whole, is_begun)


def any_number() -> Part:
    whole = rf"(?:-?[1-9][0-9]{{0,{DIGITS - 1}}}|0|-0(?=\.))"
    full = rf"{whole}(?:\.[0-9]{{1,15}})?(?:e[+-]?[0-9]{{1,2}})?"
    begun = [r"-?", whole, r"-0", rf"{whole}\.", full, rf"{whole}(?:\.[0-9]{{1,15}})?e[+-]?"]

    def is_whole(piece: bytes) -> bool:
        return re.fullmatch(full.encode(), piece) is not None

    def is_begun(piece: bytes) -> bool:
        return any(re.fullmatch(each.encode(), piece) for each in begun)

    return numbers("-+0-9.e", is_whole, is_begun)


# ---- schemas ----


class Oracle:
    """One schema. Only what it is asked for is looked at: a schema may refer to itself."""

    def __init__(self, schema: object) -> None:
        self._schema = schema
        self._depth = 0

    def is_begun(self, text: bytes) -> bool:
        """Whether the text can become an answer, or is one."""
        ends, going_on = self._root.find(text, 0)
        return going_on or len(text) in ends

    def is_answer(self, text: bytes) -> bool:
        return len(text) in self._root.find(text, 0)[0]

    @cached_property
    def _root(self) -> Part:
        return self.part(self._schema)

    def part(self, schema: object) -> Part:
        if schema is False:
            return either([])
        if schema is True or not set(schema) - {"title", "description", "$defs"}:
            return self._anything(ANY_DEPTH)
        if "$ref" in schema:
            return self._referred(schema["$ref"])
        for choice in ("anyOf", "oneOf", "allOf"):
            if choice in schema:
                return either([self.part(each) for each in schema[choice]])
        if "const" in schema or "enum" in schema:
            values = schema.get("enum", [schema.get("const")])
            return either([exactly(spelled(value)) for value in values])
        types = schema["type"]
        return either([self._typed(each, schema) for each in ([types] if isinstance(types, str) else types)])

    def _referred(self, pointer: str) -> Part:
        at = self._schema
        for step in pointer.split("/")[1:]:
            at = at[int(step)] if isinstance(at, list) else at[step]
        target: list[Part] = []

        def part() -> Part:
            if not target:
                target.append(self.part(at))
            return target[0]

        def possible() -> bool:
            if self._depth > 8:
                return False  # of endless need of itself nothing comes
            self._depth += 1
            try:
                return part().possible()
            finally:
                self._depth -= 1

        return Part(lambda text, at: part().find(text, at), possible)

    def _typed(self, name: str, schema: dict) -> Part:
        match name:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return string(schema.get("minLength", 0), schema.get("maxLength"))
            case "integer":
                low, high = bounds(schema)
                least = None if low is None else -(-low[0] // 1) + (low[1] and low[0] % 1 == 0)
                most = None if high is None else high[0] // 1 - (high[1] and high[0] % 1 == 0)
                return integer(None if least is None else int(least), None if most is None else int(most))
            case "number":
                low, high = bounds(schema)
                return any_number() if low is None and high is None else bounded_number(low, high)
            case "boolean":
                return either([exactly(b"true"), exactly(b"false")])
            case _:
                return exactly(b"null")

    def _object(self, schema: dict) -> Part:
        given = schema.get("properties", {})
        required = schema.get("required", [])
        rest = schema.get("additionalProperties", not given)
        if rest is True and not given and not required:
            return self._any_object(ANY_DEPTH)
        names = list(given) + [name for name in required if name not in given]
        parts = {name: self.part(given.get(name, rest)) for name in names}
        other = None if rest is False else self.part(rest)
        known = frozenset(spelled(name) for name in names)

        def members(place: int, comma: bytes) -> Part:
            """The object from property `place` on, up to its end."""
            if place == len(names):
                return self._others(other, known, comma)
            name = names[place]
            here = in_a_row([exactly(comma + spelled(name) + b":"), parts[name], later(place + 1, b",")])
            return here if name in required else either([here, later(place + 1, comma)])

        def later(place: int, comma: bytes) -> Part:
            made: list[Part] = []

            def part() -> Part:
                if not made:
                    made.append(members(place, comma))
                return made[0]

            return Part(lambda text, at: part().find(text, at), lambda: part().possible())

        return in_a_row([exactly(b"{"), members(0, b"")])

    def _others(self, other: Part | None, known: frozenset[bytes], comma: bytes) -> Part:
        if other is None:
            return exactly(b"}")
        again = Part(lambda text, at: self._others(other, known, b",").find(text, at))
        member = in_a_row([exactly(comma), string(but=known), exactly(b":"), other, again])
        return either([exactly(b"}"), member])

    def _array(self, schema: dict) -> Part:
        prefix = [self.part(each) for each in schema.get("prefixItems", [])]
        rest = schema.get("items", not prefix)
        rest_part = None if rest is False else self.part(rest)
        least, most = schema.get("minItems", 0), schema.get("maxItems")

        def items(count: int) -> Part:
            """The array from item `count` on, up to its end."""
            ways = [exactly(b"]")] if count >= least else []
            item = prefix[count] if count < len(prefix) else rest_part
            if item is not None and (most is None or count < most):
                enough = count >= max(least, len(prefix)) + 1
                again = Part(
                    lambda text, at: items(count + 1).find(text, at),
                    (lambda: True) if enough else (lambda: items(count + 1).possible()),
                )
                ways.append(in_a_row([exactly(b"," if count else b""), item, again]))
            return either(ways)

        return in_a_row([exactly(b"["), items(0)])

    def _anything(self, depth: int) -> Part:
        scalars = [string(), any_number(), *map(exactly, (b"true", b"false", b"null"))]
        if not depth:
            return either(scalars)
        return either([*scalars, self._any_object(depth), self._any_array(depth)])

    def _any_object(self, depth: int) -> Part:
        return lazily(lambda: in_a_row([exactly(b"{"), self._others(self._below(depth), frozenset(), b"")]))

    def _any_array(self, depth: int) -> Part:
        item = self._below(depth)

        def more() -> Part:
            return either([exactly(b"]"), in_a_row([exactly(b","), item, lazily(more)])])

        return in_a_row([exactly(b"["), either([exactly(b"]"), in_a_row([item, lazily(more)])])])

    def _below(self, depth: int) -> Part:
        return lazily(lambda: self._anything(depth - 1))


def lazily(make: Callable[[], Part]) -> Part:
    return Part(lambda text, at: make().find(text, at))


def bounds(schema: dict) -> tuple[tuple[Decimal, bool] | None, tuple[Decimal, bool] | None]:
    def all_of(inclusive: str, exclusive: str) -> list[tuple[Decimal, bool]]:
        return [(Decimal(str(schema[name])), name == exclusive) for name in (inclusive, exclusive) if name in schema]

    low = max(all_of("minimum", "exclusiveMinimum"), default=None)
    high = min(((value, out) for value, out in all_of("maximum", "exclusiveMaximum")),
               key=lambda each: (each[0], not each[1]), default=None)  # fmt: skip
    return low, high
