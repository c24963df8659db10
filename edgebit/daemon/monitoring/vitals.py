"""Whether the daemon lives and is well, as it is told to the service manager, to callers and to probes of a machine."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgebit.daemon.monitoring.health import Facts, GoldenProbe, Health, judge
from edgebit.daemon.monitoring.notify import Notifier
from edgebit.daemon.monitoring.progress import Progress, stall

log = logging.getLogger("edgebit.health")

TELL_S = 10.0  # how often at most the service manager is told, where it does not ask for more


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the daemon says of itself."""

    progress: Progress
    dead: str | None  # a thread that has ended, in words
    state: str  # of `status`
    fault: str | None  # why the model does not work
    connected: bool
    refuses: str | None = None  # why no new work is taken, in words


class Vitals:
    """turn() in the main thread, each time it turns; health() in any."""

    def __init__(
        self,
        situation: Callable[[], Situation],
        probe: GoldenProbe,
        *,
        step_max_s: float,
        notifier: Notifier,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._situation = situation
        self._probe = probe
        self._step_max_s = step_max_s
        self._notifier = notifier
        self._clock = clock
        self._turned_at = clock()
        self._told_at: float | None = None
        self._stall: str | None = None

    def turn(self) -> str | None:
        """Tell the service manager that work goes on, if it does.

        Gives why the daemon should end: a part stands still, and nobody watches who would end it.
        """
        self._turned_at = now = self._clock()
        situation = self._situation()
        found = stall(situation.progress, now, self._step_max_s)
        if found and not self._stall:
            log.critical("%s; the service manager is not told any more that all goes on", found)
        self._stall = found
        pause_s = min(TELL_S, (self._notifier.watchdog_s or TELL_S) / 3)
        if self._told_at is None:
            self._notifier.ready()
        if self._told_at is None or now - self._told_at >= pause_s:
            self._told_at = now
            self._notifier.status(_words(situation))
            if found is None:
                self._notifier.alive()
        return found if self._notifier.watchdog_s is None else None

    def stopping(self) -> None:
        """The daemon is about to end."""
        self._notifier.stopping()

    def health(self) -> Health:
        """Which levels hold now."""
        situation, now = self._situation(), self._clock()
        return judge(
            Facts(
                loop_age_s=now - self._turned_at,
                stall=stall(situation.progress, now, self._step_max_s),
                dead=situation.dead,
                state=situation.state,
                fault=situation.fault,
                connected=situation.connected,
                refuses=situation.refuses,
                doubt=self._probe.doubt(),
            )
        )


def _words(situation: Situation) -> str:
    broker = "connected" if situation.connected else "not connected to the broker"
    return f"{situation.state}, {broker}" + (f": {situation.fault}" if situation.fault else "")
