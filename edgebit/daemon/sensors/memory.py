"""Main memory. Source: proc(5), meminfo."""

from collections.abc import Iterator
from functools import partial

from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.reading import Reading, Unreadable, take


class Memory:
    """mem_total and mem_available."""

    every_s = 1.0

    def __init__(self, files: DeviceFiles) -> None:
        self._files = files

    def read(self) -> Iterator[Reading]:
        """Both, in MiB."""
        for name, key in (("mem_total", "MemTotal"), ("mem_available", "MemAvailable")):
            yield take(name, "MiB", f"/proc/meminfo {key}", partial(self._mib, key), within=(0, 1 << 30))

    def _mib(self, key: str) -> float:
        for line in self._files.text("proc/meminfo").splitlines():
            if line.startswith(f"{key}:"):
                words = line.split()
                if len(words) == 3 and words[1].isdecimal() and words[2] == "kB":
                    return round(int(words[1]) / 1024, 1)
                raise Unreadable(f"/proc/meminfo says {line[:60]!r}")
        raise Unreadable(f"/proc/meminfo has no {key}")
