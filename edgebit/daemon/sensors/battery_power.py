"""Power from the battery's own gauge, while the device lives on it: a laptop that is not plugged in.

Drivers differ in the sign of the current, so the direction is taken from `status`. Some also differ in the unit, which
shows as a device that draws next to nothing, and is refused.
Source: kernel documentation, ABI/testing/sysfs-class-power.
"""

import time
from collections.abc import Callable

from edgebit.daemon.sensors.battery import batteries
from edgebit.daemon.sensors.device_files import DeviceFiles, shown
from edgebit.daemon.sensors.power import PowerSample
from edgebit.daemon.sensors.reading import NotHere, NothingNow, Unreadable

_LEAST_W = 0.1  # milliamperes taken for microamperes look like less


class BatteryPower:
    """The sum over the device's batteries that are being discharged."""

    kind = "battery"
    every_s = 1.0

    def __init__(self, files: DeviceFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock

    def read(self) -> PowerSample:
        """Raises NotHere where there is no battery, NothingNow where none is discharged, Unreadable."""
        folders = list(batteries(self._files))
        if not folders:
            raise NotHere("no battery (/sys/class/power_supply)")
        used = [folder for folder in folders if self._files.text(f"{folder}/status") == "Discharging"]
        if not used:
            raise NothingNow("the battery is not being discharged, so it does not feed the device")
        each = [self._watts(folder) for folder in used]
        watts = sum(each)
        source = f"battery {', '.join(shown(folder) for folder in used)}"
        if watts < _LEAST_W:
            raise Unreadable(f"{source} says {watts:.3g} W: its driver counts in another unit")
        return PowerSample(at=self._clock(), watts=watts, source=source, raw=tuple(each))

    def close(self) -> None:
        """Nothing is held."""

    def _watts(self, folder: str) -> float:
        try:
            return abs(self._files.number(f"{folder}/power_now")) / 1e6
        except NotHere:
            volts = self._files.number(f"{folder}/voltage_now") / 1e6
            return volts * abs(self._files.number(f"{folder}/current_now")) / 1e6
