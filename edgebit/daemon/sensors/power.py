"""What the device draws: one source of several, checked, corrected, and never 0 for want of a reading."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgebit.daemon.sensors.reading import NotHere, NothingNow, NotYet, Reading, Unreadable

LEAST_W, MOST_W = 0.01, 2000.0  # no device that runs draws less, none of ours more
FROZEN_S = 600.0  # a chip's voltage and current flicker by a step now and then; one that has not for so long is dead
_TRY_AGAIN_S = 10.0  # how often a source that failed is tried
_PATIENCE_S = 3.0  # with a source that worked, before another takes its place


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSample:
    """Power at one moment, or on average from `since` to then; times of a monotonic clock, in seconds."""

    at: float
    watts: float
    source: str  # "ina219 1-0040 (shunt 0.1 ohm)"
    measured: bool = True
    covers: str = "device"  # what the figure is about: the whole device, or a part of it
    error: float | None = None  # relative, as the source's maker or a calibration says; None: nobody knows
    since: float | None = None
    raw: tuple[float, ...] = ()  # what a chip said, which never stays the same for long


class PowerSource(Protocol):
    """A way to know power."""

    @property
    def kind(self) -> str:
        """Its name in [power] source."""

    @property
    def every_s(self) -> float:
        """It has nothing new more often."""

    def read(self) -> PowerSample:
        """The newest sample, the same again where there is none yet. Raises NotHere or Unreadable."""

    def close(self) -> None:
        """Let it go."""


@dataclass(frozen=True, slots=True)
class Correction:
    """True watts from those that a source says: slope * said + offset."""

    slope: float = 1.0
    offset_w: float = 0.0
    error: float | None = None  # relative, of what comes out

    @classmethod
    def through(cls, points: Sequence[float], error: float | None) -> "Correction":
        """From two points: said, true, said, true. Raises ValueError where they give no rising line."""
        said_a, true_a, said_b, true_b = points
        if said_a == said_b:
            raise ValueError("both points have the same reading")
        slope = (true_b - true_a) / (said_b - said_a)
        if slope <= 0:
            raise ValueError("more said must mean more drawn")
        return cls(slope, true_a - slope * said_a, error)


class Power:
    """The first of the sources that works, looked for anew when it fails."""

    def __init__(
        self,
        sources: Sequence[PowerSource],
        correction: Correction | None = None,
        *,
        error: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sources`: best first. `error` stands for what the source itself knows of its error, where given."""
        self._sources = sources
        self._correction = correction
        self._error = error
        self._clock = clock
        self._current: PowerSource | None = None
        self._worked, self._worked_at = "", 0.0  # the kind that had the last sample
        self._failed: dict[str, tuple[float, Unreadable]] = {}
        self._steady: dict[str, tuple[tuple[float, ...], float]] = {}  # what each says, and since when

    def sample(self) -> PowerSample:
        """The newest sample. Raises Unreadable where no source has one."""
        now = self._clock()
        for source in self._sources:
            if source is not self._current and not self._is_due(source, now):
                continue
            try:
                sample = self._checked(source, now)
            except NotYet:
                raise
            except Unreadable as why:
                if source is self._current and now - self._worked_at < _PATIENCE_S:
                    raise
                self._failed[source.kind] = (now, why)
                self._current = None if source is self._current else self._current
                continue
            self._current, self._worked, self._worked_at = source, source.kind, now
            self._failed.pop(source.kind, None)
            return sample
        raise self._why_not()

    def _is_due(self, source: PowerSource, now: float) -> bool:
        failed = self._failed.get(source.kind)
        return failed is None or len(self._sources) == 1 or now - failed[0] >= _TRY_AGAIN_S

    @property
    def kind(self) -> str:
        """Of the source that works, its name in [power] source; empty where none does."""
        return self._current.kind if self._current is not None else ""

    @property
    def every_s(self) -> float:
        """How often it is worth asking."""
        return self._current.every_s if self._current is not None else 1.0

    def close(self) -> None:
        """Let all sources go."""
        for source in self._sources:
            source.close()

    def _checked(self, source: PowerSource, now: float) -> PowerSample:
        """The source's sample, corrected. Raises Unreadable where it says what cannot be."""
        sample = source.read()
        if sample.raw:
            raw, since = self._steady.get(source.kind, ((), now))
            if sample.raw != raw:
                self._steady[source.kind] = (sample.raw, now)
            elif now - since > FROZEN_S:
                raise Unreadable(f"{sample.source} has said exactly the same for {now - since:.0f} s: it is stuck")
        if self._correction is not None:
            watts = self._correction.slope * sample.watts + self._correction.offset_w
            sample = dataclasses.replace(
                sample, watts=watts, source=f"{sample.source}, calibrated", error=self._correction.error
            )
        if sample.watts < -LEAST_W:
            raise Unreadable(f"{sample.source} says {sample.watts:.3g} W: is it wired the other way round?")
        if not LEAST_W <= sample.watts <= MOST_W:
            raise Unreadable(f"{sample.source} says {sample.watts:.3g} W, which no device that runs draws")
        return sample if self._error is None else dataclasses.replace(sample, error=self._error)

    def _why_not(self) -> Unreadable:
        """Why the last that worked rests; else what is wrong with those that are there; else that there is none."""
        found = {kind: why for kind, (_, why) in self._failed.items()}
        if isinstance(last := found.get(self._worked), NothingNow):
            return last
        broken = [str(why) for why in found.values() if not isinstance(why, NotHere)]
        if broken:
            return Unreadable("; ".join(broken))
        if len(found) == 1:
            return next(iter(found.values()))
        return NotHere(f"no power sensor (looked for: {', '.join(source.kind for source in self._sources) or 'none'})")


def power_reading(sample: PowerSample, now: float) -> Reading:
    """The reading `power`, in W; what it is not about stands in its source."""
    source = sample.source if sample.covers == "device" else f"{sample.source}: {sample.covers} only"
    age_s = round(max(now - sample.at, 0.0), 3)
    return Reading("power", "W", round(sample.watts, 3), source, age_s, sample.measured)
