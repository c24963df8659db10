"""Threads that cost heat and bring no speed: found by trying, while the device is hot, and shed.

Decode is bound by memory, so the last threads often only wait, and warm. How many are enough cannot be said beforehand:
on a hot device the firmware lowers the clock, and then more of them may be needed. So one thread fewer is tried for as
long as it takes to measure, and kept where the speed stays within a share of what all threads gave just before.
"""

from dataclasses import dataclass, replace

KEEPS = 0.98  # share of the speed that must stay
MEASURE_S = 30.0  # of computing, for a speed
SETTLE_S = 5.0  # after a move, which are not measured
FORGET_S = 3600.0  # then what was found out is tried again
DOUBT_S = 300.0  # and not before this, though the speed falls


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """What was decoded since the look before."""

    tok_s: float
    streams: int  # answers decoded together
    seconds: float  # of computing


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """What is known of it, and the measurement that is going on."""

    place: int = 0  # the lowest level of which it is known that it keeps the speed
    found_at: float | None = None  # when trying ended; None: it has not
    reference: float | None = None  # tok/s with all threads, hot; None: not measured yet
    streams: int = 0  # of all measurements of this round
    seconds: float = 0.0  # of the measurement that is going on
    tokens: float = 0.0

    @property
    def is_begun(self) -> bool:
        """Whether anything is known, or a first level has been measured."""
        return self.found_at is not None or self.reference is not None

    @property
    def is_trying(self) -> bool:
        """Whether a level is tried now, which goes on though the device may cool meanwhile."""
        return self.found_at is None and self.reference is not None

    def tried(self, level: int, last: int, decoding: Decoding | None, now: float) -> tuple[int, "Surplus"]:
        """The level of a hot device for the time to come, and what is known then; last: the lowest that there is."""
        if self.found_at is not None and now - self.found_at >= FORGET_S:
            return 0, Surplus()
        if decoding is None:
            return (level if self.found_at is None else self.place), self
        if decoding.streams != self.streams and self.seconds:
            return self._in_another_batch()
        seconds, tokens = self.seconds + decoding.seconds, self.tokens + decoding.tok_s * decoding.seconds
        measured = replace(self, streams=decoding.streams, seconds=seconds, tokens=tokens)
        if seconds < MEASURE_S:
            return (level if self.found_at is None else self.place), measured
        return measured._measured(level, last, tokens / seconds, now)

    def _in_another_batch(self) -> tuple[int, "Surplus"]:
        """Speeds of different batches cannot be compared: what was found stays, what is tried begins anew."""
        if self.found_at is None:
            return 0, Surplus()
        return self.place, replace(self, seconds=0.0, tokens=0.0)

    def _measured(self, level: int, last: int, speed: float, now: float) -> tuple[int, "Surplus"]:
        reference = speed if self.reference is None else self.reference
        known = replace(self, seconds=0.0, tokens=0.0, reference=reference)
        keeps = speed >= KEEPS * reference
        if self.found_at is not None:
            is_doubtful = not keeps and self.place > 0 and now - self.found_at >= DOUBT_S
            return (0, Surplus()) if is_doubtful else (self.place, known)
        if not keeps:
            return level - 1, replace(known, place=level - 1, found_at=now)
        if level == last:
            return level, replace(known, place=level, found_at=now)
        return level + 1, replace(known, place=level)
