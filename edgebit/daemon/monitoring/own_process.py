"""What this process takes of the machine, and how busy the machine is, from procfs below a root that tests can choose.

Source: proc(5): /proc/self/status, /proc/stat.
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path

LEAST_S = 0.5  # over less time, ticks of a hundredth of a second say little of the CPU


class OwnProcess:
    """Memory and CPU of the daemon, and CPU of the device, each since the reading before."""

    def __init__(
        self,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = lambda: _cpu_s(),
    ) -> None:
        """`cpu_s` gives the CPU seconds that the process has had."""
        self._root = root
        self._clock = clock
        self._cpu_s = cpu_s
        self._before = (clock(), cpu_s())
        self._ticks_before = self._ticks()
        self._cpu: dict[str, float | None] = {"cpu_percent": None, "cpu_busy_percent": None}

    def read(self) -> dict[str, float | None]:
        """Megabytes of memory and percent of CPU; None where the system does not say."""
        now = self._clock()
        if now - self._before[0] >= LEAST_S:
            self._cpu = self._cpu_since(now)
        memory = memory_mib("self", self._root)
        return {**self._cpu, "rss_mib": memory.get("RssAnon"), "rss_mapped_mib": memory.get("RssFile")}

    def _cpu_since(self, now: float) -> dict[str, float | None]:
        before, self._before = self._before, (now, self._cpu_s())
        ticks_before, self._ticks_before = self._ticks_before, self._ticks()
        busy = None
        if ticks_before is not None and self._ticks_before is not None:
            total, idle = (now - then for now, then in zip(self._ticks_before, ticks_before, strict=True))
            busy = min(100.0, max(0.0, 100.0 * (total - idle) / total)) if total > 0 else None
        own = 100.0 * (self._before[1] - before[1]) / (now - before[0])
        return {"cpu_percent": own, "cpu_busy_percent": busy}

    def _ticks(self) -> tuple[int, int] | None:
        """All ticks and the idle ones of all cores together."""
        words = next(iter(_lines(self._root / "proc/stat")), "").split()
        if len(words) < 6 or words[0] != "cpu" or not all(word.isdigit() for word in words[1:]):
            return None
        ticks = [int(word) for word in words[1:9]]  # guest time, which follows, is part of user time
        return sum(ticks), ticks[3] + ticks[4]


def memory_mib(process: int | str, root: Path = Path("/")) -> dict[str, float]:
    """What a process holds, in MiB: RssAnon, of its own, and RssFile, of mapped files; as far as the system says it."""
    found = {}
    for line in _lines(root / "proc" / str(process) / "status"):
        key, _, rest = line.partition(":")
        words = rest.split()
        if key in ("RssAnon", "RssFile") and words and words[0].isdigit():
            found[key] = int(words[0]) / 1024
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
