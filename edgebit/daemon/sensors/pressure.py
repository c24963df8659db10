"""Pressure stall information: the part of the last 10 s in which work waited for processor, memory or disk.

`psi_memory_full` above a few per cent means that weights are being paged. Source: kernel documentation,
accounting/psi.
"""

import re
from collections.abc import Iterator
from functools import partial

from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.reading import Reading, Unreadable, take

_LINE = re.compile(r"^(some|full) avg10=([0-9]{1,3}\.[0-9]{1,4}) avg60=", re.MULTILINE)
_READINGS = (
    ("psi_cpu", "cpu", "some"),
    ("psi_memory", "memory", "some"),
    ("psi_memory_full", "memory", "full"),
    ("psi_io", "io", "some"),
)


class Pressure:
    """psi_cpu, psi_memory, psi_memory_full, psi_io."""

    every_s = 2.0  # the kernel itself counts every 2 s

    def __init__(self, files: DeviceFiles) -> None:
        self._files = files

    def read(self) -> Iterator[Reading]:
        """All four, in % of the last 10 s."""
        for name, file, kind in _READINGS:
            yield take(
                name,
                "%",
                f"/proc/pressure/{file} {kind} avg10",
                partial(self._percent, file, kind),
                within=(0, 100),
            )

    def _percent(self, file: str, kind: str) -> float:
        for found in _LINE.finditer(self._files.text(f"proc/pressure/{file}")):
            if found[1] == kind:
                return float(found[2])
        raise Unreadable(f"/proc/pressure/{file} has no line {kind!r}")
