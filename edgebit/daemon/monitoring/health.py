"""Three levels of health, each with the one before: alive (it runs), ready (it answers), healthy (it answers right).

That it answers right is shown by the model file's golden probes, run on an engine of their own over the same weights
and library: at the start and then at an interval, while nothing is to be answered. A request ends a run, which begins
again later; on a device that is never idle, one runs beside the work. A probe that differs makes the device refuse its
work; it is tried again, since only that can tell that the fault is gone.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgebit.errors import BundleError, EdgebitError
from edgebit.runtime.eval_errors import Cancelled

log = logging.getLogger("edgebit.health")

LOOP_SILENCE_S = 30.0  # of the main thread, which turns each second
RETRY_S = 60.0  # after a run that did not pass
OVERDUE = 2.0  # intervals without an idle moment: then the probes run beside the work
STALE = 3.0  # intervals after which a probe that passed says nothing of today


class Probes(Protocol):
    """The golden probes of a loaded model: serving.golden_probes has them."""

    def check(self) -> int:
        """Run them all, give how many. Raises BundleError naming the first that differs, EngineError, Cancelled."""

    def cancel(self) -> None:
        """End check() early. From any thread."""


class GoldenProbe:
    """When the golden probes run, and what they said last. tend() and stop() in one thread, the rest in any."""

    def __init__(
        self,
        interval_s: float,
        spawn: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """interval_s 0: never; `spawn` runs a function in a thread of its own."""
        self._interval_s = interval_s
        self._spawn = spawn
        self._running: Probes | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._clock = clock
        self._began = clock()
        self._passed_at: float | None = None
        self._next = self._began
        self._obstacle = ""  # why the last run came to no verdict
        self.fault: str | None = None  # the probe that differed in the last run with a verdict
        self.count = 0  # probes that passed in the last run

    def tend(self, probes: Probes, *, busy: bool) -> None:
        """Begin a run where it is time, and end one where something is to be answered."""
        now = self._clock()
        makes_way = busy and not self._is_overdue(now)
        if self._running is not None and self._idle.is_set():
            self._running = None
        if self._running is not None:
            if makes_way:
                self._running.cancel()
        elif self._interval_s and now >= self._next and not makes_way:
            self._running = probes
            self._idle.clear()
            self._spawn(lambda: self._run(probes))

    def stop(self, timeout_s: float) -> None:
        """End a run, for the model is about to be closed."""
        self._interval_s = 0.0
        while not self._idle.wait(0.1) and timeout_s > 0:  # a run that has just begun hears the next cancel
            timeout_s -= 0.1
            if self._running is not None:
                self._running.cancel()

    def _run(self, probes: Probes) -> None:
        self._next = self._clock() + RETRY_S  # whatever becomes of this run
        try:
            self._judge(probes)
        finally:
            self._idle.set()

    def _judge(self, probes: Probes) -> None:
        before = self.fault
        try:
            self.count = probes.check()
        except Cancelled:
            self._next = self._clock() + RETRY_S
            return
        except BundleError as error:
            self.count, self.fault, self._obstacle = 0, str(error), ""
        except (EdgebitError, MemoryError) as error:  # too little memory for a second engine, say
            self._obstacle = str(error) or "too little memory"
            log.warning("the golden probes cannot run now: %s", self._obstacle)
        else:
            self.fault, self._obstacle, self._passed_at = None, "", self._clock()
        passed = not self.fault and not self._obstacle
        self._next = self._clock() + (self._interval_s if passed else RETRY_S)
        if self.fault and not before:
            log.critical("a golden probe failed, so that no answer can be trusted: %s", self.fault)
        elif before and not self.fault:
            log.warning("the golden probes pass again")
        elif passed:
            log.info("%d golden probes passed", self.count)

    def doubt(self) -> str | None:
        """Why one cannot say that the engine computes right; None where one can, or where nobody wants to know."""
        if not self._interval_s:
            return None
        if self.fault:
            return f"a golden probe failed: {self.fault}"
        age_s = self._clock() - (self._began if self._passed_at is None else self._passed_at)
        if self._passed_at is not None and age_s <= STALE * self._interval_s:
            return None
        why = f": {self._obstacle}" if self._obstacle else ""
        return f"the golden probes have not passed {'yet' if self._passed_at is None else f'for {age_s:.0f} s'}{why}"

    def to_json(self) -> dict[str, Any]:
        """For the operation `health`; `passed` is null before the first verdict."""
        passed_at = self._passed_at
        verdict = False if self.fault else None if passed_at is None else True
        age_s = None if passed_at is None else round(self._clock() - passed_at, 1)
        return {"passed": verdict, "count": self.count, "passed_s_ago": age_s}

    def _is_overdue(self, now: float) -> bool:
        last = self._began if self._passed_at is None else self._passed_at
        return now - last >= OVERDUE * self._interval_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the levels are judged by."""

    loop_age_s: float  # since the main thread's last turn
    stall: str | None  # as progress.stall() has it
    dead: str | None  # a thread that has ended, in words
    state: str  # of `status`
    fault: str | None
    connected: bool
    refuses: str | None  # why no new work is taken, in words
    doubt: str | None  # as GoldenProbe.doubt()


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The levels, and why one does not hold."""

    alive: bool
    ready: bool
    healthy: bool
    why: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """For the operation `health` and the pages of the port."""
        return {"alive": self.alive, "ready": self.ready, "healthy": self.healthy, "why": list(self.why)}


def judge(facts: Facts) -> Health:
    """The levels that hold."""
    loop = f"the main thread has not turned for {facts.loop_age_s:.0f} s" if facts.loop_age_s > LOOP_SILENCE_S else None
    against_alive = [why for why in (loop, facts.stall, facts.dead) if why]
    against_ready = [why for why in (facts.fault, facts.refuses) if why]
    if not facts.connected:
        against_ready.append("the broker is not connected")
    if facts.state in ("init", "draining", "fault") and not facts.fault:
        against_ready.append({"init": "the model is being loaded"}.get(facts.state, f"the state is {facts.state}"))
    against_healthy = [facts.doubt] if facts.doubt else []
    return Health(
        alive=not against_alive,
        ready=not against_alive and not against_ready,
        healthy=not against_alive and not against_ready and not against_healthy,
        why=(*against_alive, *against_ready, *against_healthy),
    )
