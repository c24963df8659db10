"""Energy of any stretch of time, from samples of power: trapezoids between them, and nothing across a gap.

Also how far off sampling may make it. What power did between two samples shows in how much they differ, so half of
that difference is uncertain there. Errors of different segments have different signs and add as squares; within one
segment, however many steps of the engine lie in it, they are one error. Two standard deviations are given.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgebit.daemon.sensors.power import PowerSample

_KEPT = 8192  # segments: half an hour at five samples a second
_SWING_S = 10.0  # the power of so long a time tells how much it may change next
_AVERAGE_MAX_S = 60.0  # a counter's difference over a longer time is not taken
_SPREAD = 2 * math.sqrt(2)  # of samples of noise, half differences hold half the variance that their sum has


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The time from one sample to the next."""

    begin: float
    end: float
    watts_begin: float = 0.0
    watts_end: float = 0.0
    swing_w: float = 0.0  # what the two samples tell of the course between them
    unsure_w: float = 0.0
    averaged: bool = False  # the energy of the whole is known, only its course is not
    missing: str | None = None  # why nothing is known; "": nobody has said

    def joules(self, begin: float, end: float) -> float:
        """Of a part of it, exact for power that changes in a straight line."""
        slope = (self.watts_end - self.watts_begin) / (self.end - self.begin)
        return (end - begin) * (self.watts_begin + slope * ((begin + end) / 2 - self.begin))

    def unsure_j(self, seconds: float) -> float:
        """Of so many seconds of it."""
        if self.averaged:
            seconds = max(min(seconds, self.end - self.begin - seconds), 0.0)
        return seconds * self.unsure_w


@dataclass(slots=True)
class Drawn:
    """Of work that goes on through time: its parts are added in their order."""

    joules: float = 0.0
    missing_s: float = 0.0  # of it nothing is known
    why: str = ""  # it is not
    _squares: float = 0.0  # of what is unsure in the segments before the one of now
    _now: Segment | None = None
    _seconds: float = 0.0  # in the segment of now
    _shared_s: float = 0.0  # the same by shares

    def add(self, segment: Segment, begin: float, end: float, share: float = 1.0) -> None:
        """Take in a part of a segment, of which a share counts; missing time counts whole."""
        if segment.missing is not None:
            self.missing_s += end - begin
            self.why = self.why or segment.missing
            return
        self.joules += share * segment.joules(begin, end)
        if segment is not self._now:
            self._squares += self._unsure_now_j() ** 2
            self._now, self._seconds, self._shared_s = segment, 0.0, 0.0
        self._seconds += end - begin
        self._shared_s += share * (end - begin)

    @property
    def unsure_j(self) -> float:
        """How far off sampling may make it."""
        return math.sqrt(self._squares + self._unsure_now_j() ** 2)

    def _unsure_now_j(self) -> float:
        if self._now is None or not self._seconds:
            return 0.0
        return self._now.unsure_j(self._seconds) * self._shared_s / self._seconds


@dataclass(slots=True)
class EnergyMeter:
    """Power over time, as far back as it is kept. Times of the samples' clock; for one thread."""

    gap_s: float  # samples further apart than this have a gap between them
    last: PowerSample | None = None
    total_j: float = 0.0
    missing_s: float = 0.0  # of the time between the first sample and the last
    _segments: deque[Segment] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _ahead: Segment | None = None  # what the last sample stands for until the next comes
    _lost: str = ""

    def add(self, sample: PowerSample) -> None:
        """Take in a sample; one that is no newer than the last is the same one again."""
        before = self.last
        if before is not None and sample.at <= before.at:
            return
        self.last, self._ahead = sample, None
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

    def parts(self, begin: float, end: float, *, extrapolate: bool = False) -> list[tuple[Segment, float, float]]:
        """From begin to end, the segments and what of them lies within, in their order.

        With `extrapolate` the last sample stands for what came after it, up to a gap.
        """
        if self.last is None:
            return [(_unknown(begin, end, self._lost or "power has not been sampled yet"), begin, end)]
        first = self._segments[0].begin if self._segments else self.last.at
        parts = [(segment, max(begin, segment.begin), min(end, segment.end)) for segment in self._touching(begin, end)]
        parts.reverse()
        if begin < first:
            early = min(end, first)
            parts.insert(0, (_unknown(begin, early, "power was not sampled when it began"), begin, early))
        if end > self.last.at:
            late = max(begin, self.last.at)
            after = self._after_last(end) if extrapolate else _unknown(late, end, self._lost)
            parts.append((after, late, end))
        return parts

    def _touching(self, begin: float, end: float) -> Iterator[Segment]:
        """The newest first: work is asked for soon after it."""
        for segment in reversed(self._segments):
            if segment.end <= begin:
                return
            if segment.begin < end:
                yield segment

    def _between(self, before: PowerSample | None, sample: PowerSample, begin: float) -> Segment:
        at, watts = sample.at, sample.watts
        if before is not None and before.source != sample.source:
            return _unknown(begin, at, f"the power source changed from {before.source} to {sample.source}")
        if before is None:
            return Segment(begin, at, watts, watts, averaged=True)
        if sample.since is not None and sample.since <= begin + self.gap_s and at - begin <= _AVERAGE_MAX_S:
            swing_w = abs(watts - before.watts)
            return Segment(begin, at, watts, watts, swing_w, self._unsure_w(swing_w), averaged=True)
        if at - begin > self.gap_s:
            return _unknown(begin, at, self._lost or "power was not sampled")
        swing_w = abs(watts - before.watts) / 2
        return Segment(begin, at, before.watts, watts, swing_w, self._unsure_w(swing_w))

    def _unsure_w(self, swing_w: float) -> float:
        """Two samples of noise may agree by chance, so what those before them differed by counts too."""
        squares = [swing_w**2, *(segment.swing_w**2 for segment in self._recent())]
        return _SPREAD * max(swing_w, math.sqrt(sum(squares) / len(squares)))

    def _recent(self) -> Iterator[Segment]:
        if self.last is not None:
            yield from (each for each in self._touching(self.last.at - _SWING_S, math.inf) if each.missing is None)

    def _append(self, segment: Segment) -> None:
        self._segments.append(segment)
        if segment.missing is not None:
            self.missing_s += segment.end - segment.begin
        else:
            self.total_j += segment.joules(segment.begin, segment.end)

    def _after_last(self, end: float) -> Segment:
        assert self.last is not None
        at, watts = self.last.at, self.last.watts
        if end - at > self.gap_s:
            return _unknown(at, end, self._lost)
        if self._ahead is None:
            recent = [each for segment in self._recent() for each in (segment.watts_begin, segment.watts_end)]
            if not recent:
                return _unknown(at, end, "power was sampled only once")
            self._ahead = Segment(at, at + self.gap_s, watts, watts, unsure_w=max(recent) - min(recent))
        return self._ahead


def _unknown(begin: float, end: float, why: str) -> Segment:
    return Segment(begin, end, missing=why)
