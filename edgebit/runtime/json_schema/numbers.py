"""Numbers as an answer spells them, within bounds, digit by digit: no number is ever made and then looked at.

A whole number has no point and no exponent, and 0 no sign. Other numbers may have a fraction and, without bounds, an
exponent. Source: RFC 8259 section 6.
"""

from decimal import Decimal

from edgebit.runtime.json_schema.limits import EXPONENT_DIGITS, FRACTION_DIGITS, INTEGER_DIGITS
from edgebit.runtime.json_schema.network import Network
from edgebit.runtime.json_schema.nodes import Bound, Integer, Number

ZERO = ord("0")
NINE = ord("9")


def integer(network: Network, source: int, target: int, bounds: Integer) -> None:
    """Every whole number within the bounds; one that is missing leaves room for INTEGER_DIGITS."""
    digits = max(
        INTEGER_DIGITS, *(len(str(abs(each))) + 1 for each in (bounds.least, bounds.most) if each is not None), 0
    )
    least = -(10**digits) + 1 if bounds.least is None else bounds.least
    most = 10**digits - 1 if bounds.most is None else bounds.most
    if least < 0:
        minus = network.state()
        network.byte(source, ord("-"), ord("-"), minus)
        _naturals(network, minus, target, max(-most, 1), -least)
    if most >= 0:
        _naturals(network, source, target, max(least, 0), most)


def _naturals(network: Network, source: int, target: int, least: int, most: int) -> None:
    """Every whole number of least to most, neither negative, without zeros before it."""
    if least > most:
        return
    low, high = str(least), str(most)
    for length in range(len(low), len(high) + 1):
        first = low if length == len(low) else "1" + "0" * (length - 1)
        last = high if length == len(high) else "9" * length
        _Digits(network, first, last, length).between(source, target)


class _Digits:
    """Strings of digits from `low` to `high`, which have one length; those cut after `length` digits or more count.

    A string cut short stands for itself with zeros behind it.
    """

    def __init__(
        self, network: Network, low: str, high: str, length: int, *, excluded: tuple[bool, bool] = (False, False)
    ) -> None:
        self._network = network
        self._low, self._high = low, high
        self._length = length
        self._excluded = excluded
        self._known: dict[tuple[int, bool, bool], int] = {}

    def between(self, source: int, target: int, *, at_low: bool = True, at_high: bool = True) -> None:
        """Lead from source to target by each of them; at_low, at_high: as much as what came before was the limit's."""
        self._go_on(source, 0, at_low, at_high, target)

    def may_be_left_out(self, *, at_low: bool, at_high: bool) -> bool:
        """Whether no digit at all, which stands for zeros, is between them as well."""
        return self._may_end(0, at_low, at_high)

    def _go_on(self, source: int, at: int, at_low: bool, at_high: bool, target: int) -> None:
        if at >= self._length and self._may_end(at, at_low, at_high):
            self._network.skip(source, target)
        if at == len(self._low):
            return
        first = int(self._low[at]) if at_low else 0
        last = int(self._high[at]) if at_high else 9
        for begin, end, low, high in _parts(first, last, at_low, at_high):
            self._network.byte(source, ZERO + begin, ZERO + end, self._state(at + 1, low, high, target))

    def _state(self, at: int, at_low: bool, at_high: bool, target: int) -> int:
        key = (at, at_low, at_high)
        if key not in self._known:
            self._known[key] = self._network.state()
            self._go_on(self._known[key], at, at_low, at_high, target)
        return self._known[key]

    def _may_end(self, at: int, at_low: bool, at_high: bool) -> bool:
        equals_low = at_low and not self._low[at:].strip("0")
        equals_high = at_high and not self._high[at:].strip("0")
        if at_low and (not equals_low or self._excluded[0]):
            return False
        return not (equals_high and self._excluded[1])


def _parts(first: int, last: int, at_low: bool, at_high: bool) -> list[tuple[int, int, bool, bool]]:
    """The digits first .. last in runs that go on alike: whether the low and the high limit still bind after them."""
    if first > last:
        return []
    if first == last:
        return [(first, last, at_low, at_high)]
    parts = []
    if at_low:
        parts.append((first, first, True, False))
        first += 1
    if at_high:
        parts.append((last, last, False, True))
        last -= 1
    if first <= last:
        parts.append((first, last, False, False))
    return parts


def number(network: Network, source: int, target: int, bounds: Number) -> None:
    """Every number within the bounds, of up to so many digits as `limits` says."""
    if bounds.low is None and bounds.high is None:
        _any_number(network, source, target)
        return
    low, high = bounds.low, bounds.high
    if low is None or low.value < 0:
        minus = network.state()
        network.byte(source, ord("-"), ord("-"), minus)
        above_zero = Bound(Decimal(0), excluded=True)
        least = above_zero if high is None or high.value >= 0 else Bound(-high.value, high.excluded)
        _decimals(network, minus, target, least, None if low is None else Bound(-low.value, low.excluded))
    if high is None or high.value >= 0:
        least = low if low is not None and low.value >= 0 else Bound(Decimal(0))
        _decimals(network, source, target, least, high)


def _any_number(network: Network, source: int, target: int) -> None:
    whole, fraction, exponent = network.state(), network.state(), network.state()
    integer(network, source, whole, Integer())
    minus_zero = network.text(source, b"-0")
    point = network.text(whole, b".")
    network.text(minus_zero, b".", point)
    _up_to(network, point, fraction, FRACTION_DIGITS)
    network.skip(whole, target)
    network.skip(fraction, target)
    sign = network.state()
    for before in (whole, fraction):
        network.text(before, b"e", exponent)
    network.skip(exponent, sign)
    network.texts(exponent, (b"+", b"-"), sign)
    _up_to(network, sign, target, EXPONENT_DIGITS)


def _up_to(network: Network, source: int, target: int, most: int) -> None:
    """One to `most` digits."""
    for _ in range(most):
        following = network.state()
        network.byte(source, ZERO, NINE, following)
        network.skip(following, target)
        source = following


def _decimals(network: Network, source: int, target: int, low: Bound, high: Bound | None) -> None:
    """Every decimal from low to high, neither negative; without an exponent."""
    if high is not None and low.value > high.value:
        return
    ends = [low] if high is None else [low, high]
    whole_digits = max(len(str(int(each.value))) for each in ends)
    places = max(max(_places(each.value) for each in ends), INTEGER_DIGITS - whole_digits, 1)
    if high is None:
        high = Bound(Decimal(10 ** max(INTEGER_DIGITS, whole_digits + 1)), excluded=True)
    least, most = int(low.value), int(high.value)
    for whole_least, whole_most, at_low, at_high in _wholes(least, most):
        whole = network.state()
        _naturals(network, source, whole, whole_least, whole_most)
        fraction = _Digits(
            network,
            _fraction(low.value, places) if at_low else "0" * places,
            _fraction(high.value, places) if at_high else "9" * places,
            1,
            excluded=(low.excluded and at_low, high.excluded and at_high),
        )
        point = network.text(whole, b".")
        fraction.between(point, target, at_low=at_low, at_high=at_high)
        if fraction.may_be_left_out(at_low=at_low, at_high=at_high):
            network.skip(whole, target)


def _wholes(least: int, most: int) -> list[tuple[int, int, bool, bool]]:
    """The whole parts least .. most in runs: whether the low and the high limit bind their fractions."""
    if least == most:
        return [(least, most, True, True)]
    runs = [(least, least, True, False), (most, most, False, True)]
    if least + 1 <= most - 1:
        runs.append((least + 1, most - 1, False, False))
    return runs


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def _fraction(value: Decimal, places: int) -> str:
    """The digits after the point, `places` of them."""
    scaled = (value % 1).scaleb(places)
    return str(int(scaled)).zfill(places)
