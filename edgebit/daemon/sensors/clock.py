"""The processor's clock: the true one, and the one that was asked for, which firmware need not grant.

Source: kernel documentation, admin-guide/pm/cpufreq; Raspberry Pi documentation, vcgencmd measure_clock.
"""

import re
from collections.abc import Iterator

from edgebit.daemon.sensors.device_files import DeviceFiles, shown
from edgebit.daemon.sensors.firmware import Firmware
from edgebit.daemon.sensors.reading import Reading, Unreadable

_CPUS = "sys/devices/system/cpu"
_ASKED = "scaling_cur_freq"
# What tells the true clock, best first; the last only says what the kernel asked for.
_TRUE = (("cpuinfo_avg_freq", True), ("cpuinfo_cur_freq", True), (_ASKED, False))
_NO_DRIVER = "no cpufreq driver tells its clock"
_MOST_MHZ = 20_000


class Clock:
    """clock, as true as this device tells it, and clock_asked: MHz of the fastest core."""

    every_s = 1.0

    def __init__(self, files: DeviceFiles, firmware: Firmware) -> None:
        self._files = files
        self._firmware = firmware

    def read(self) -> Iterator[Reading]:
        """clock and clock_asked, in MHz."""
        yield self._true()
        asked = self._fastest(_ASKED)
        if asked is None:
            yield Reading("clock_asked", "MHz", None, shown(_CPUS), measured=False, absent=_NO_DRIVER)
        else:
            yield Reading("clock_asked", "MHz", asked[0], asked[1], measured=False)

    def _true(self) -> Reading:
        try:
            said = self._firmware.clock_hz()
        except Unreadable:
            said = None
        if said is not None and 0 < said.value <= _MOST_MHZ * 1_000_000:
            return Reading("clock", "MHz", round(said.value / 1e6, 1), said.source, round(said.age_s, 3))
        for file, measured in _TRUE:
            if (found := self._fastest(file)) is not None:
                return Reading("clock", "MHz", found[0], found[1], measured=measured)
        return Reading("clock", "MHz", None, shown(_CPUS), absent=_NO_DRIVER)

    def _fastest(self, file: str) -> tuple[float, str] | None:
        """MHz of the fastest core that tells, and the file."""
        found = []
        for cpu in self._files.entries(_CPUS, "cpu"):
            if not re.fullmatch(r".*/cpu[0-9]+", cpu):
                continue
            path = f"{cpu}/cpufreq/{file}"
            try:
                mhz = round(self._files.number(path) / 1000, 1)
            except Unreadable:
                continue
            if 0 < mhz <= _MOST_MHZ:
                found.append((mhz, shown(path)))
        return max(found, key=lambda item: item[0], default=None)
