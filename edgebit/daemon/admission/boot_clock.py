"""Time that outlives the process: exact while the machine is up, bounded by the wall clock over a reboot."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment as it can be written down."""

    boot: str  # which run of the machine; empty: not known
    up_s: float  # since it began, time asleep counted
    wall_s: float  # of day; devices without a battery have it wrong until they are connected


Clock = Callable[[], Instant]


def boot_clock() -> Clock:
    """The machine's clock."""
    try:
        boot = BOOT_ID.read_text().strip()
    except OSError:
        boot = ""
    counter = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return lambda: Instant(boot, time.clock_gettime(counter), time.time())


def elapsed_s(then: Instant, now: Instant) -> float:
    """Seconds between. After a reboot what the wall clock says, and 0 where it stands before `then`."""
    if then.boot and then.boot == now.boot:
        return max(0.0, now.up_s - then.up_s)
    return max(0.0, now.wall_s - then.wall_s)


def carried_over(then: Instant, now: Instant) -> Instant:
    """`then` as this run of the machine counts it, so that no wall clock is asked about it again."""
    passed_s = elapsed_s(then, now)
    return Instant(now.boot, now.up_s - passed_s, now.wall_s - passed_s)
