"""Memory: how much this machine has, how much this process has held, and what shows how fast it is read."""

import resource
import sys
from pathlib import Path

_MIB = 1 << 20
_BUFFER_LEAST, _BUFFER_MOST = 64 * _MIB, 512 * _MIB


def total_memory_bytes(root: Path = Path("/")) -> int | None:
    """RAM that the kernel has to give; None where it does not say. `root`: where /proc lies."""
    return _field(root / "proc/meminfo", "MemTotal")


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """What may be used without others losing theirs; None where the kernel does not say. `root`: where /proc lies."""
    return _field(root / "proc/meminfo", "MemAvailable")


def rss_bytes() -> int | None:
    """The memory that this process holds now, files that are mapped and were read among it; None: not told."""
    return _field(Path("/proc/self/status"), "VmRSS")


def peak_rss_bytes() -> int:
    """The most memory that this process has held. Linux's ru_maxrss begins with what the process before exec held."""
    peak = _field(Path("/proc/self/status"), "VmHWM")
    if peak is not None:
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read_buffer_bytes(root: Path = Path("/")) -> int:
    """How large a buffer shows the speed of memory: eight times the last cache, at most a quarter of what is free."""
    free = available_memory_bytes(root)
    most = _BUFFER_MOST if free is None else min(_BUFFER_MOST, free // 4)
    return max(_MIB, min(max(8 * last_cache_bytes(root), _BUFFER_LEAST), most))


def last_cache_bytes(root: Path = Path("/")) -> int:
    """The largest cache of the first core; 0 where the system does not tell."""
    caches = root / "sys/devices/system/cpu/cpu0/cache"
    sizes = [_text(path).strip() for path in caches.glob("index*/size")]
    known = [int(size[:-1]) << {"K": 10, "M": 20}[size[-1]] for size in sizes if size[-1:] in ("K", "M")]
    return max(known, default=0)


def _field(path: Path, key: str) -> int | None:
    """Of a file with lines as "MemTotal:  4096 kB", in bytes; None where it has no such line."""
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        if name == key and value.split()[:1] and value.split()[0].isdigit():
            return 1024 * int(value.split()[0])
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
