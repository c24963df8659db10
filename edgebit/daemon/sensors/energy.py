"""Joules of a piece of work, with where they come from and how far they may be off."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What a piece of work has drawn, or the reason why nobody can say: then `joules` is None, never 0.

    It is all that the source sees in the time of the work (what the device draws at rest too), by the work's share.
    """

    joules: float | None
    source: str = ""  # the power source: "ina219 1-0040 (shunt 0.1 ohm)", "pmic_sum_fit ..."
    measured: bool = True  # False: computed from other figures
    error: float | None = None  # relative, of the whole chain; None: not known
    covers: str = "device"  # "processor": a part of the device alone
    idle_w: float | None = None  # what the device draws at rest, as learnt; None: not known yet
    absent: str = ""  # "no power sensor", "the meter was silent for 12 s of 20"

    def to_json(self, completion_tokens: int = 0) -> dict[str, Any]:
        """The `energy` object of a reply: without joules it says `absent`. Joules of a token count the prompt's too."""
        if self.joules is None:
            return {"absent": self.absent}
        body: dict[str, Any] = {"joules": _rounded(self.joules)}
        if completion_tokens:
            body["joules_per_token"] = _rounded(self.joules / completion_tokens)
        body |= {"source": self.source, "measured": self.measured, "covers": self.covers}
        if self.error is not None:
            body["error"] = round(self.error, 3)
        if self.idle_w is not None:
            body["idle_w"] = round(self.idle_w, 2)
        return body


def _rounded(joules: float) -> float:
    """Four figures that count."""
    return float(f"{joules:.4g}")
