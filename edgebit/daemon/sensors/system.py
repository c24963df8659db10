"""Temperature, clock, load, memory and uptime from sysfs and procfs below a root that tests can choose.

A reading carries its unit, its source, its age and whether it was measured. A sensor that is not there, or cannot be
read now, is absent with a reason; it is never 0.
Source: kernel documentation, sysfs-class-thermal, cpu-freq/user-guide, proc(5).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Thermal zones of processors by `type`, best first; the number of a zone means nothing.
CPU_ZONES = ("cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "x86_pkg_temp", "cpu", "soc", "acpitz")
SANE_C = (-40.0, 150.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure, or the reason why there is none."""

    name: str
    unit: str
    value: float | None
    source: str  # the file it came from, or was looked for in
    age_s: float = 0.0
    measured: bool = True  # False: what the system asked for or estimates
    absent: str = ""

    def to_json(self) -> dict[str, Any]:
        """For metrics: an absent reading has no value."""
        body = {key: value for key, value in asdict(self).items() if key not in ("name", "value", "absent")}
        return {**body, "absent": self.absent} if self.value is None else {"value": self.value, **body}


class Sensors:
    """What this device can tell about itself. Sensors are looked for at every reading, since drivers load late."""

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock

    def read(self) -> dict[str, Reading]:
        """All readings by name; absent ones are among them."""
        began = self._clock()
        readings = [
            self.read_temperature(),
            self._clock_mhz(),
            *self._load(),
            *self._memory(),
            self._first_number("uptime", "s", "proc/uptime"),
        ]
        age_s = round(self._clock() - began, 3)
        return {
            reading.name: Reading(
                reading.name, reading.unit, reading.value, reading.source, age_s, reading.measured, reading.absent
            )
            for reading in readings
        }

    def read_temperature(self) -> Reading:
        """The processor's temperature."""
        zones: dict[str, Path] = {}
        for zone in sorted((self._root / "sys/class/thermal").glob("thermal_zone*"), key=lambda path: path.name):
            kind = self._text(zone / "type")
            if kind is not None:
                zones.setdefault(kind, zone)
        best = min(zones, key=_zone_rank, default=None)
        if best is None or _zone_rank(best) > len(CPU_ZONES):
            why = f"no thermal zone of a processor (there are: {', '.join(sorted(zones)) or 'none'})"
            return Reading("t_soc", "C", None, "/sys/class/thermal", absent=why)
        path = zones[best] / "temp"
        value = self._number(path)
        source = f"{self._shown(path)} ({best})"
        if value is None:
            return Reading("t_soc", "C", None, source, absent="cannot be read now")
        celsius = round(value / 1000, 1)  # the file has thousandths
        if not SANE_C[0] <= celsius <= SANE_C[1]:
            return Reading("t_soc", "C", None, source, absent=f"says {celsius}, which no processor has")
        return Reading("t_soc", "C", celsius, source)

    def _clock_mhz(self) -> Reading:
        """The fastest core's clock. scaling_cur_freq is what the kernel asked for: firmware may run it slower."""
        name = "sys/devices/system/cpu"
        for file, measured in (("cpuinfo_cur_freq", True), ("scaling_cur_freq", False)):
            paths = sorted((self._root / name).glob(f"cpu[0-9]*/cpufreq/{file}"))
            values = [(value, path) for path in paths if (value := self._number(path)) is not None and value > 0]
            if values:
                value, path = max(values, key=lambda item: item[0])
                return Reading("clock", "MHz", round(value / 1000, 1), self._shown(path), measured=measured)
        return Reading("clock", "MHz", None, f"/{name}", absent="no cpufreq driver tells its clock")

    def _load(self) -> Iterator[Reading]:
        text = self._text(self._root / "proc/loadavg") or ""
        parts = text.split()
        for name, position in (("load_1m", 0), ("load_5m", 1)):
            try:
                yield Reading(name, "1", float(parts[position]), "/proc/loadavg")
            except (IndexError, ValueError):
                yield Reading(name, "1", None, "/proc/loadavg", absent="cannot be read")

    def _memory(self) -> Iterator[Reading]:
        found = {}
        for line in (self._text(self._root / "proc/meminfo") or "").splitlines():
            key, _, rest = line.partition(":")
            words = rest.split()
            if words and words[0].isdigit():
                found[key] = int(words[0])
        for name, key in (("mem_total", "MemTotal"), ("mem_available", "MemAvailable")):
            if key in found:
                yield Reading(name, "MiB", round(found[key] / 1024, 1), f"/proc/meminfo {key}")
            else:
                yield Reading(name, "MiB", None, f"/proc/meminfo {key}", absent="not in the file")

    def _first_number(self, name: str, unit: str, file: str) -> Reading:
        words = (self._text(self._root / file) or "").split()
        try:
            return Reading(name, unit, float(words[0]), f"/{file}")
        except (IndexError, ValueError):
            return Reading(name, unit, None, f"/{file}", absent="cannot be read")

    def _text(self, path: Path) -> str | None:
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError):  # a sensor may be asleep (EAGAIN), gone, or forbidden
            return None

    def _number(self, path: Path) -> float | None:
        try:
            return float(self._text(path) or "")
        except ValueError:
            return None

    def _shown(self, path: Path) -> str:
        return f"/{path.relative_to(self._root)}"


def _zone_rank(kind: str) -> int:
    """Place in CPU_ZONES; names that begin alike (cpu0-thermal, soc-top-thermal) come after; others are out."""
    if kind in CPU_ZONES:
        return CPU_ZONES.index(kind)
    return len(CPU_ZONES) if kind.startswith(("cpu", "soc")) else len(CPU_ZONES) + 1
