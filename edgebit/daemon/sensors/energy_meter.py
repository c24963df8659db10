"""Energy of any stretch of time, from samples of power: trapezoids between them, and nothing across a gap.

Also how far off that may be: between two samples power may have jumped at any moment, so half of their difference is
uncertain for as long as the stretch overlaps them.
"""

from collections import deque
from dataclasses import dataclass

from edgebit.daemon.sensors.power import PowerSample

_KEPT = 8192  # segments: half an hour at five samples a second
_SWING_S = 10.0  # the power of so long a time tells how much it may change next
_AVERAGE_MAX_S = 60.0  # a counter's difference over a longer time is not taken


@dataclass(slots=True)
class Drawn:
    """Of a stretch of time."""

    joules: float = 0.0
    unsure_j: float = 0.0
    missing_s: float = 0.0  # of it nothing is known
    why: str = ""  # it is not

    def add(self, other: "Drawn", share: float = 1.0) -> None:
        """Take in another stretch, of which a share counts; missing time counts whole."""
        self.joules += share * other.joules
        self.unsure_j += share * other.unsure_j
        self.missing_s += other.missing_s
        self.why = self.why or other.why


@dataclass(frozen=True, slots=True)
class _Segment:
    begin: float
    end: float
    watts_begin: float
    watts_end: float
    unsure_w: float = 0.0
    averaged: bool = False  # the energy of the whole is known, only its course is not
    missing: str = ""


class EnergyMeter:
    """Power over time, as far back as it is kept. Times of the samples' clock; for one thread."""

    def __init__(self, gap_s: float) -> None:
        """`gap_s`: samples further apart than this have a gap between them."""
        self.gap_s = gap_s
        self.last: PowerSample | None = None
        self.total_j = 0.0
        self.missing_s = 0.0  # of the time between the first sample and the last
        self._segments: deque[_Segment] = deque(maxlen=_KEPT)
        self._lost = ""

    def add(self, sample: PowerSample) -> None:
        """Take in a sample; one that is no newer than the last is the same one again."""
        before = self.last
        if before is not None and sample.at <= before.at:
            return
        self.last = sample
        begin = before.at if before is not None else sample.since
        if begin is not None:
            self._append(self._between(before, sample, begin))
        self._lost = ""

    def lost(self, why: str) -> None:
        """There is no sample now, and this is why."""
        self._lost = self._lost or why

    @property
    def until(self) -> float | None:
        """Up to when power is known."""
        return self.last.at if self.last is not None else None

    @property
    def first(self) -> float | None:
        """From when on it is kept."""
        return self._segments[0].begin if self._segments else self.until

    def drawn(self, begin: float, end: float, *, extrapolate: bool = False) -> Drawn:
        """From begin to end. With `extrapolate` the last sample stands for what came after it, up to a gap."""
        drawn = Drawn()
        for segment in reversed(self._segments):
            if segment.end <= begin:
                break
            overlap = min(end, segment.end) - max(begin, segment.begin)
            if overlap > 0:
                drawn.add(_part(segment, max(begin, segment.begin), min(end, segment.end)))
        if self.first is None or self.last is None:
            return Drawn(missing_s=end - begin, why=self._lost or "power has not been sampled yet")
        if (early := min(end, self.first) - begin) > 0:
            drawn.add(Drawn(missing_s=early, why="power was not sampled when it began"))
        if (late := end - max(begin, self.last.at)) > 0:
            drawn.add(self._after_last(late, end) if extrapolate else Drawn(missing_s=late, why=self._lost))
        return drawn

    def _between(self, before: PowerSample | None, sample: PowerSample, begin: float) -> _Segment:
        if before is not None and before.source != sample.source:
            why = f"the power source changed from {before.source} to {sample.source}"
            return _Segment(begin, sample.at, 0.0, 0.0, missing=why)
        if before is None:
            return _Segment(begin, sample.at, sample.watts, sample.watts, averaged=True)
        if sample.since is not None and sample.since <= begin + self.gap_s and sample.at - begin <= _AVERAGE_MAX_S:
            unsure_w = abs(sample.watts - before.watts)
            return _Segment(begin, sample.at, sample.watts, sample.watts, unsure_w, averaged=True)
        if sample.at - begin > self.gap_s:
            why = self._lost or "power was not sampled"
            return _Segment(begin, sample.at, 0.0, 0.0, missing=why)
        unsure_w = abs(sample.watts - before.watts) / 2
        return _Segment(begin, sample.at, before.watts, sample.watts, unsure_w)

    def _append(self, segment: _Segment) -> None:
        self._segments.append(segment)
        whole = _part(segment, segment.begin, segment.end)
        self.total_j += whole.joules
        self.missing_s += whole.missing_s

    def _after_last(self, seconds: float, end: float) -> Drawn:
        assert self.last is not None
        if end - self.last.at > self.gap_s:
            return Drawn(missing_s=seconds, why=self._lost or "power was not sampled")
        recent = [
            watts
            for segment in self._segments
            if segment.end > self.last.at - _SWING_S and not segment.missing
            for watts in (segment.watts_begin, segment.watts_end)
        ]
        if not recent:
            return Drawn(missing_s=seconds, why="power was sampled only once")
        return Drawn(seconds * self.last.watts, seconds * (max(recent) - min(recent)))


def _part(segment: _Segment, begin: float, end: float) -> Drawn:
    """The energy of a part of a segment, exact for power that changes in a straight line."""
    seconds, length = end - begin, segment.end - segment.begin
    if segment.missing:
        return Drawn(missing_s=seconds, why=segment.missing)
    slope = (segment.watts_end - segment.watts_begin) / length
    middle = segment.watts_begin + slope * ((begin + end) / 2 - segment.begin)
    unsure_s = min(seconds, length - seconds) if segment.averaged else seconds
    return Drawn(seconds * middle, unsure_s * segment.unsure_w)
