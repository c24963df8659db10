"""Which cores of this machine are worth a worker thread."""

import os
from pathlib import Path


def default_threads(sysfs: Path = Path("/sys/devices/system/cpu")) -> int:
    """One thread for each big core that this process may use.

    Cores of a big.LITTLE chip differ in cpu_capacity (0 to 1024, the scheduler's own figure). Little cores may help,
    since threads claim their parts (docs/decisions/thread-pool.md), but none is counted here: each step ends when the
    last part does, and what a little core adds is for `tune` to measure. Without the figure all cores count as big.
    """
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    capacities = [_capacity(sysfs / f"cpu{core}" / "cpu_capacity") for core in affinity]
    return max(1, capacities.count(max(capacities, default=0)))


def _capacity(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
