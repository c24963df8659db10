"""Power from RAPL, the energy counters of PCs' processors: of the platform (psys), or of packages and memory.

A counter wraps at max_energy_range_uj. Only the zones of one driver are summed: intel-rapl-mmio counts the same
package once more. Recent kernels let root alone read them. Source: kernel documentation, power/powercap.
"""

import re
import time
from collections.abc import Callable

from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.power import PowerSample
from edgebit.daemon.sensors.reading import NotHere, NotYet, Unreadable

_CLASS = "sys/class/powercap"
_PACKAGE = re.compile(r"package-[0-9]+")
_LEAST_S = 0.05  # a shorter difference is mostly noise
_MOST_S = 60.0  # after a longer one (a device asleep) a counter may have wrapped more than once


class RaplPower:
    """Average power since the reading before."""

    kind = "rapl"
    every_s = 0.2

    def __init__(self, files: DeviceFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._before: tuple[float, dict[str, float]] | None = None  # when, and each zone's microjoules
        self._last: PowerSample | None = None

    def read(self) -> PowerSample:
        """Raises NotHere where there is no RAPL, Unreadable where it may not be read or has been read once only."""
        zones = self._zones()
        now = self._clock()
        if self._before is not None and self._last is not None and now - self._before[0] < _LEAST_S:
            return self._last
        counters = {zone: self._files.number(f"{zone}/energy_uj") for zone in zones}
        before, self._before = self._before, (now, counters)
        if before is None or before[1].keys() != counters.keys() or now - before[0] > _MOST_S:
            self._last = None
            raise NotYet("RAPL's counters have been read once only")
        joules = sum(self._risen(zone, before[1][zone], counters[zone]) for zone in zones) / 1e6
        seconds = now - before[0]
        if joules <= 0:
            self._before = before  # it may rise yet
            self._last = None
            raise Unreadable(f"RAPL's counters have stood still for {seconds:.1f} s")
        names = sorted(set(zones.values()))
        self._last = PowerSample(
            at=now,
            since=before[0],
            watts=joules / seconds,
            source=f"rapl {' + '.join(names)}",
            covers="device" if names == ["psys"] else "processor" + (" and memory" if "dram" in names else ""),
        )
        return self._last

    def close(self) -> None:
        """Nothing is held."""

    def _zones(self) -> dict[str, str]:
        """Folder to name, of the zones that are summed."""
        named: dict[str, str] = {}
        for folder in self._files.entries(_CLASS, "intel-rapl:"):
            try:
                named[folder] = self._files.label(f"{folder}/name")
            except Unreadable:
                continue
        platform = {folder: name for folder, name in named.items() if name == "psys"}
        if platform:
            return platform
        zones = {folder: name for folder, name in named.items() if _PACKAGE.fullmatch(name) or name == "dram"}
        if not any(_PACKAGE.fullmatch(name) for name in zones.values()):
            raise NotHere("no RAPL (/sys/class/powercap)")
        return zones

    def _risen(self, zone: str, before: float, now: float) -> float:
        """Microjoules. Raises Unreadable where a counter went back and does not say where it wraps."""
        if now >= before:
            return now - before
        span = self._files.number(f"{zone}/max_energy_range_uj")
        if not before <= span:
            raise Unreadable(f"/{zone}/energy_uj went back")
        return now + span - before
