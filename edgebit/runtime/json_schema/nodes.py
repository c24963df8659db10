"""A schema once it is read: what a value may be, as a tree. Nodes that say the same are equal, wherever they stood."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Literal:
    """One of these JSON texts (const, enum, boolean, null)."""

    texts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class String:
    """A string of `least` to `most` characters; most None: of any length."""

    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number; None: no bound."""

    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range of numbers."""

    value: Decimal
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """A number; None: no bound."""

    low: Bound | None = None
    high: Bound | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """The items of `prefix`, then ones like `rest` (None: no others); `least` to `most` together."""

    prefix: tuple["Node", ...] = ()
    rest: "Node | None" = None
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Property:
    """A property of an object; it may be left out unless it is required."""

    name: str
    value: "Node"
    required: bool


@dataclass(frozen=True, slots=True)
class Object:
    """The properties in their order, then others whose values are like `rest` (None: no others).

    closed: the schema itself forbids others; else they are merely not written, as it has nothing to say of them
    """

    properties: tuple[Property, ...] = ()
    rest: "Node | None" = None
    closed: bool = False


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What any of the branches allows; without branches: nothing at all."""

    branches: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """What stands at this JSON pointer of the same schema; a number: any JSON, nested so deep at most."""

    target: str | int


Node = Literal | String | Integer | Number | Array | Object | AnyOf | Reference

NOTHING = AnyOf(())
