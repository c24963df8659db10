"""Whose work drew how many joules: the scheduler tells of each step of the engine, the sampler of power.

A step's energy is all that the source sees during it, so what the device draws at rest is in it, and is shared by
the jobs of the step. Samples lag behind steps: a step is booked once power is known to its end.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.sensors.energy_meter import Drawn, EnergyMeter
from edgebit.daemon.sensors.power import PowerSample
from edgebit.daemon.sensors.reading import Reading

_ACCOUNTS_MAX = 4096  # jobs that were never closed are forgotten, the oldest first
_AT_WORK_S = 2.0  # after the last step the engine counts as at work
_REST_AFTER_S = 10.0  # after a step the device still cools down, and its fan with it
_STEP_MAX_S = 60.0  # whether a sample was of a step is known so much later at the latest
_REST_SMOOTHING = 0.05


@dataclass(slots=True)
class _Step:
    begin: float
    end: float
    shares: dict[Hashable, float]


@dataclass(slots=True)
class _Account:
    work_s: float = 0.0
    drawn: Drawn = field(default_factory=Drawn)


class _Rest:
    """What the device draws at rest, learnt from samples that turn out to be of no step."""

    def __init__(self, now: float) -> None:
        self.watts: float | None = None
        self._busy_until = now + _REST_AFTER_S
        self._source = ""
        self._waiting: deque[PowerSample] = deque()

    def worked(self, begin: float, end: float) -> None:
        self._busy_until = max(self._busy_until, end + _REST_AFTER_S)
        while self._waiting and self._waiting[-1].at >= begin:
            self._waiting.pop()

    def add(self, sample: PowerSample) -> None:
        if sample.source != self._source:
            self.watts, self._source = None, sample.source
            self._waiting.clear()
        if sample.at > self._busy_until and (not self._waiting or sample.at > self._waiting[-1].at):
            self._waiting.append(sample)
        while self._waiting and self._waiting[0].at < sample.at - _STEP_MAX_S:
            watts = self._waiting.popleft().watts
            self.watts = watts if self.watts is None else self.watts + _REST_SMOOTHING * (watts - self.watts)


class EnergyLedger:
    """record() and close() from the worker, add() and lost() from the sampler, the rest from any thread."""

    def __init__(self, gap_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`gap_s`: samples of power further apart than this have a gap between them."""
        self._clock = clock
        self._lock = threading.Lock()
        self._meter = EnergyMeter(gap_s)
        self._steps: deque[_Step] = deque()  # not booked yet
        self._accounts: dict[Hashable, _Account] = {}
        self._absent = "power has not been sampled yet"
        self._rest = _Rest(clock())
        self._worked_at = -math.inf
        self.work_began = threading.Event()  # wakes the sampler, which looks more often while there is work

    def record(self, begin_s: float, end_s: float, shares: Mapping[Any, float]) -> None:
        """A step of the engine took from begin to end (monotonic) and was for these jobs, by these weights.

        Weights are of any scale: tokens, or parts of 1.
        """
        total = sum(weight for weight in shares.values() if weight > 0)
        if end_s <= begin_s or total <= 0:
            return
        parts = {key: weight / total for key, weight in shares.items() if weight > 0}
        with self._lock:
            for key in parts:
                self._account(key).work_s += end_s - begin_s
            self._steps.append(_Step(begin_s, end_s, parts))
            self._worked_at = max(end_s, self._worked_at)
            self._rest.worked(begin_s, end_s)
            self._book(end_s - self._meter.gap_s)
        self.work_began.set()

    def close(self, key: Hashable) -> Energy:
        """What the job has drawn; its account is closed. It waits for nothing.

        What the last samples have not reached yet is taken to be as the last one, and the error grows with it.
        """
        with self._lock:
            account = self._accounts.pop(key, None)
            if account is None:
                return Energy(joules=None, absent="the engine did no work for it")
            for step in self._steps:
                share = step.shares.pop(key, None)
                if share is not None:
                    for part in self._meter.parts(step.begin, step.end, extrapolate=True):
                        account.drawn.add(*part, share)
            return self._energy(account)

    def add(self, sample: PowerSample) -> None:
        """Take in a sample of power."""
        with self._lock:
            self._meter.add(sample)
            self._absent = ""
            self._rest.add(sample)
            self._book(-math.inf)

    def lost(self, why: str) -> None:
        """There is no sample now, and this is why."""
        with self._lock:
            self._meter.lost(why)
            self._absent = why

    def at_work(self) -> bool:
        """Whether the engine has just been at work, so that power is worth a look more often."""
        return self._clock() - self._worked_at < _AT_WORK_S

    def total(self) -> Reading:
        """energy_total: joules since the daemon's start, of the time in which power was known."""
        with self._lock:
            last, meter = self._meter.last, self._meter
            if last is None:
                return Reading("energy_total", "J", None, "", absent=self._absent)
            source = last.source
            if meter.missing_s:
                source += f", {meter.missing_s:.0f} s in which power was not known left out"
            age_s = round(max(self._clock() - last.at, 0.0), 3)
            return Reading("energy_total", "J", round(meter.total_j, 2), source, age_s, last.measured)

    def _account(self, key: Hashable) -> _Account:
        account = self._accounts.setdefault(key, _Account())
        if len(self._accounts) > _ACCOUNTS_MAX:
            del self._accounts[next(iter(self._accounts))]
        return account

    def _book(self, overdue: float) -> None:
        """Steps that power is known for, and those that ended before `overdue`, for which it will not be known."""
        known = self._meter.until if self._meter.until is not None else -math.inf
        while self._steps and self._steps[0].end <= max(known, overdue):
            step = self._steps.popleft()
            if not step.shares:
                continue
            parts = self._meter.parts(step.begin, step.end)
            for key, share in step.shares.items():
                if (account := self._accounts.get(key)) is not None:
                    for part in parts:
                        account.drawn.add(*part, share)

    def _energy(self, account: _Account) -> Energy:
        drawn, last = account.drawn, self._meter.last
        if drawn.missing_s > 0 or last is None:
            why = drawn.why or self._absent
            if drawn.missing_s < account.work_s:
                why = f"power was not known for {drawn.missing_s:.1f} s of {account.work_s:.1f}: {why}"
            return Energy(joules=None, absent=why or "power was not sampled")
        sampling = drawn.unsure_j / drawn.joules  # the source's own error has one sign for all of it, so it is added
        return Energy(
            joules=drawn.joules,
            source=last.source,
            measured=last.measured,
            covers=last.covers,
            error=None if last.error is None else last.error + sampling,
            idle_w=self._rest.watts,
        )
