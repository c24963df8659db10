"""Joules of a piece of work, with where they come from and how far they may be off."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What a piece of work has drawn, or the reason why nobody can say: then `joules` is None, never 0."""

    joules: float | None
    source: str = ""  # the power source: "ina219 /sys/class/hwmon/hwmon2", "pmic_sum_fit"
    measured: bool = True  # False: computed from other figures
    error: float | None = None  # relative, of the whole chain; None: not known
    absent: str = ""  # "no power sensor", "the meter was silent for 12 s of 20"

    def to_json(self) -> dict[str, Any]:
        """The `energy` object of a reply: without joules it says `absent`."""
        if self.joules is None:
            return {"absent": self.absent}
        body = {"joules": round(self.joules, 3), "source": self.source, "measured": self.measured}
        return body if self.error is None else {**body, "error": self.error}
