"""Which cores a process that is measured is kept to."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_SYSTEM = Path("/sys/devices/system/cpu")


def usable_cores() -> list[int]:
    """The cores that this process may use, those that the system calls fastest first."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    return sorted(sorted(os.sched_getaffinity(0)), key=lambda core: -_capacity(core))


def cores_for(threads: int) -> list[int]:
    """The cores that a run with so many threads is kept to: as many, or all where there are fewer."""
    return usable_cores()[:threads]


@contextlib.contextmanager
def pinned(cores: list[int]) -> Iterator[None]:
    """Programs started within it run on `cores` only, where this system can do that; the caller's thread too."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _capacity(core: int) -> int:
    """The scheduler's own figure, 0 to 1024; 0 where it gives none."""
    try:
        return int((_SYSTEM / f"cpu{core}" / "cpu_capacity").read_text())
    except (OSError, ValueError):
        return 0
