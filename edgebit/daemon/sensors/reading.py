"""One figure of a device with its unit, source and age, or the reason why there is none."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


class Unreadable(Exception):
    """A figure cannot be had now; says why, in words that `absent` can carry."""


class NotHere(Unreadable):
    """There is no such sensor on this device, so nothing is wrong with it either."""


class NothingNow(NotHere):
    """The sensor is there and well, and has nothing to tell as things are: the power of a battery that rests."""


class NotYet(Unreadable):
    """It has only just been asked: the next call may have it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure, or the reason why there is none: then `value` is None, never 0."""

    name: str
    unit: str
    value: float | None
    source: str  # the file, command or chip it came from, or was looked for in
    age_s: float = 0.0
    measured: bool = True  # False: what the system asked for, or computed from other figures
    absent: str = ""
    is_lost: bool = True  # where absent: whether that is amiss of a sensor that gave a value before

    def older(self, seconds: float) -> "Reading":
        """The same, so much later."""
        return dataclasses.replace(self, age_s=round(self.age_s + seconds, 3))

    def to_json(self) -> dict[str, Any]:
        """For metrics: an absent reading has no value."""
        body = {key: value for key, value in asdict(self).items() if key not in ("name", "value", "absent", "is_lost")}
        return {**body, "absent": self.absent} if self.value is None else {"value": self.value, **body}


def take(
    name: str,
    unit: str,
    source: str,
    figure: Callable[[], float],
    *,
    within: tuple[float, float] = (-math.inf, math.inf),
    measured: bool = True,
) -> Reading:
    """The reading that `figure` gives; absent where it raises Unreadable or gives what cannot be."""
    try:
        value = figure()
    except Unreadable as why:
        return Reading(name, unit, None, source, measured=measured, absent=str(why))
    if not within[0] <= value <= within[1]:  # NaN lies nowhere
        return Reading(name, unit, None, source, measured=measured, absent=f"says {value:g}, which cannot be")
    return Reading(name, unit, value, source, measured=measured)
