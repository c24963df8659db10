"""The governor at work: what the sensors say and the engine did goes in, and the scheduler gets the levers."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from edgebit.daemon.config.sections import GovernorConfig
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.governor.steering import Engine, Happening, Reading, Steering
from edgebit.daemon.serving.work import PassTotals


class Governed(Protocol):
    """What is held back: the scheduler is."""

    def apply(self, levers: Levers) -> None:
        """Obey these from now on."""

    def totals(self) -> PassTotals:
        """What the engine has done so far."""


class GovernorLoop:
    """tick() often, from one thread; it looks when it is time."""

    def __init__(
        self,
        config: GovernorConfig,
        governed: Governed,
        readings: Callable[[], Mapping[str, Reading]],
        threads: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        *,
        threads_fixed: bool = False,
    ) -> None:
        """`threads`: that the engine was opened with, and stays at where they are fixed; 0 while there is none."""
        self._governed = governed
        self._readings = readings
        self._threads = threads
        self._threads_fixed = threads_fixed
        self._clock = clock
        self._steering = Steering(config, clock)
        self._before = PassTotals()
        self._looked_at = clock()

    @property
    def levers(self) -> Levers:
        """Where they stand."""
        return self._steering.levers

    def tick(self) -> list[Happening]:
        """Look, if it is time, and let the levers be obeyed; gives what there is to tell."""
        if not self._steering.due():
            return []
        happened = self._steering.look(self._readings(), self._engine())
        self._governed.apply(self._steering.levers)
        return happened

    def status(self) -> dict[str, Any]:
        """The governor's part of the status document."""
        return self._steering.status()

    def metrics(self) -> dict[str, Any]:
        """What it knows and does, for metrics."""
        return self._steering.metrics()

    def _engine(self) -> Engine:
        """What the engine did since the look before."""
        now, totals = self._clock(), self._governed.totals()
        elapsed_s, before = now - self._looked_at, self._before
        self._looked_at, self._before = now, totals
        busy_s, decode_s = totals.busy_s - before.busy_s, totals.decode_s - before.decode_s
        drawn = totals.drawn - before.drawn
        return Engine(
            threads=self._threads(),
            threads_fixed=self._threads_fixed,
            busy=min(max(busy_s / elapsed_s, 0.0), 1.0) if elapsed_s > 0 else 0.0,
            tok_s=drawn / decode_s if decode_s > 0 and drawn else None,
            streams=max(round((totals.answer_s - before.answer_s) / decode_s), 1) if decode_s > 0 else 1,
        )
