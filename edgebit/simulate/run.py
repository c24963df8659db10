"""A time of work on a simulated device, with the daemon's own decide() at the levers or without it."""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgebit.daemon.governor.governor import decide
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.governor.settings import Readings, Settings
from edgebit.daemon.governor.state import State
from edgebit.simulate.device import Device

_STEPS = 4  # in a second, at whose end the governor looks
STEP_S = 1 / _STEPS
QUEUE_MAX = 8  # as the daemon's own
LIMIT_C = 80.0  # where firmware begins to slow the cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is asked of the device: answers of so many tokens, all the time or at random moments."""

    tokens: int = 256
    per_hour: float | None = None  # None: there is always one more
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Who is at the levers. settings None: the firmware alone, with `threads`."""

    name: str
    threads: int
    settings: Settings | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One second."""

    at: float
    celsius: float
    clock_mhz: int
    threads: int
    duty: float
    tok_s: float
    watts: float
    admit: bool


@dataclass(slots=True)
class Result:
    """What came of it; `samples` has each second."""

    control: str
    samples: list[Sample] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)  # seconds between tokens, and for how many
    answered: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)  # from asking to the whole answer
    moves: int = 0  # of the levers

    @property
    def tok_s(self) -> float:
        """Over the second half, when the device is warm."""
        half = self.samples[len(self.samples) // 2 :]
        return sum(sample.tok_s for sample in half) / len(half)

    @property
    def gap_p95_s(self) -> float:
        """95 of 100 tokens come sooner after the one before."""
        left = 0.05 * sum(count for _, count in self.gaps)
        for gap, count in sorted(self.gaps, reverse=True):
            left -= count
            if left <= 0:
                return gap
        return 0.0

    @property
    def joules_per_token(self) -> float:
        """Of the whole board, over all of the time."""
        tokens = sum(sample.tok_s for sample in self.samples)
        return sum(sample.watts for sample in self.samples) / tokens if tokens else 0.0

    @property
    def over_s(self) -> int:
        """Seconds at or above LIMIT_C."""
        return sum(sample.celsius >= LIMIT_C for sample in self.samples)

    @property
    def max_c(self) -> float:
        """The warmest second."""
        return max(sample.celsius for sample in self.samples)

    @property
    def wait_p95_s(self) -> float:
        """Of the answered."""
        waits = sorted(self.waits)
        return waits[int(0.95 * (len(waits) - 1))] if waits else 0.0


def run(case: str, ambient_c: float, work: Work, control: Control, duration_s: int) -> Result:
    """Simulate; the same arguments give the same result."""
    bench = Bench(case, ambient_c, work, control)
    coming = deque(arrivals(work, duration_s))
    for second in range(duration_s):
        while coming and coming[0] < second + 1:
            bench.ask(coming.popleft())
        bench.second(second)
    return bench.result


class Bench:
    """The device, its queue, and whoever is at the levers."""

    def __init__(self, case: str, ambient_c: float, work: Work, control: Control) -> None:
        self.result = Result(control.name)
        self._device = Device(case, ambient_c)
        self._work, self._settings = work, control.settings
        self._coming: deque[float] = deque()  # when requests of this second come
        self._queue: deque[list[float]] = deque()  # [when it came, tokens left]
        self._levers, self._state = Levers(threads=control.threads), State()

    @property
    def levers(self) -> Levers:
        """Where they stand."""
        return self._levers

    @property
    def takes(self) -> bool:
        """Whether a request would be taken now."""
        return self._levers.admit and len(self._queue) + len(self._coming) <= QUEUE_MAX

    def ask(self, at: float) -> None:
        """A request for the next second()."""
        self._coming.append(at)

    def second(self, second: int) -> None:
        """One second of work, and a look of the governor at its end."""
        tokens = joules = busy = 0.0
        for step in range(_STEPS):
            now = second + step * STEP_S
            self._take_requests(now)
            is_busy = bool(self._queue)
            done, drawn = self._device.step(
                STEP_S, threads=self._levers.threads if is_busy else 0, duty=self._levers.duty
            )
            joules += drawn
            if is_busy:
                busy += self._levers.duty / _STEPS
                tokens += done
                self._decoded(done, now)
        device, levers = self._device, self._levers
        self.result.samples.append(
            Sample(second, device.celsius, device.clock_mhz, levers.threads, levers.duty, tokens, joules, levers.admit)
        )
        if self._settings is not None:
            self._look(self._settings, tokens, busy, float(second + 1))

    def _take_requests(self, now: float) -> None:
        while self._coming and self._coming[0] <= now:
            at = self._coming.popleft()
            if self._levers.admit and len(self._queue) <= QUEUE_MAX:
                self._queue.append([at, float(self._work.tokens)])
            else:
                self.result.refused += 1
        if self._work.per_hour is None and not self._queue and self._levers.admit:
            self._queue.append([now, float(self._work.tokens)])

    def _decoded(self, tokens: float, now: float) -> None:
        self.result.gaps.append((STEP_S / tokens, tokens))
        self._queue[0][1] -= tokens
        if self._queue[0][1] <= 0:
            self.result.answered += 1
            self.result.waits.append(now - self._queue.popleft()[0])

    def _look(self, settings: Settings, tokens: float, busy: float, now: float) -> None:
        device, before = self._device, self._levers
        readings = Readings(
            celsius=device.celsius,
            clock=float(device.clock_mhz),
            throttled=device.throttled,
            busy=busy,
            tok_s=tokens / busy if busy > 0.5 * before.duty else None,
        )
        self._levers, self._state = decide(self._state, readings, settings, now)
        self.result.moves += (before.threads, before.duty) != (self._levers.threads, self._levers.duty)


def arrivals(work: Work, duration_s: int) -> Iterator[float]:
    """When requests come; none where there is always one more."""
    if work.per_hour is None:
        return
    clock, chance = 0.0, random.Random(work.seed)
    while (clock := clock + chance.expovariate(work.per_hour / 3600)) < duration_s:
        yield clock
