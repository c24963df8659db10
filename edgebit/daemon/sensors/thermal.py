"""The processor's temperature: a thermal zone chosen by its type, or the processor's own hwmon chip.

Source: kernel documentation, driver-api/thermal/sysfs-api, hwmon/coretemp, hwmon/k10temp.
"""

from collections.abc import Iterator

from edgebit.daemon.sensors.device_files import DeviceFiles, shown
from edgebit.daemon.sensors.hwmon import chips
from edgebit.daemon.sensors.reading import Reading, Unreadable, take

# Thermal zones of processors by `type`, best first; the number of a zone means nothing.
CPU_ZONES = ("cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "x86_pkg_temp", "cpu", "soc", "acpitz")
CPU_CHIPS = ("coretemp", "k10temp", "zenpower")  # PCs whose processor has no zone
SANE_C = (-40.0, 150.0)


class Thermal:
    """t_soc. Zones are looked for at every reading, since drivers load late and may go."""

    every_s = 1.0

    def __init__(self, files: DeviceFiles) -> None:
        self._files = files

    def read(self) -> Iterator[Reading]:
        """t_soc, in C."""
        zones = self._zones()
        best = min(zones, key=_zone_rank, default=None)
        if best is not None and _zone_rank(best) <= len(CPU_ZONES):
            path = f"{zones[best]}/temp"
            yield self._celsius(path, f"{shown(path)} ({best})")
            return
        for chip in chips(self._files, *CPU_CHIPS):
            path = f"{chip.folder}/temp1_input"
            yield self._celsius(path, f"{shown(path)} ({chip.name})")
            return
        why = f"no thermal zone of a processor (there are: {', '.join(sorted(zones)) or 'none'})"
        yield Reading("t_soc", "C", None, "/sys/class/thermal", absent=why)

    def _zones(self) -> dict[str, str]:
        zones: dict[str, str] = {}
        for zone in self._files.entries("sys/class/thermal", "thermal_zone"):
            try:
                zones.setdefault(self._files.label(f"{zone}/type"), zone)
            except Unreadable:
                continue
        return zones

    def _celsius(self, path: str, source: str) -> Reading:
        return take("t_soc", "C", source, lambda: round(self._files.number(path) / 1000, 1), within=SANE_C)


def _zone_rank(kind: str) -> int:
    """Place in CPU_ZONES; names that begin alike (cpu0-thermal, soc-top-thermal) come after; others are out."""
    kind = kind.lower()  # CPU-therm on a Jetson Nano
    if kind in CPU_ZONES:
        return CPU_ZONES.index(kind)
    return len(CPU_ZONES) if kind.startswith(("cpu", "soc")) else len(CPU_ZONES) + 1
