"""How fast the fan is told to turn.

Source: kernel documentation, hwmon/pwm-fan, driver-api/thermal/sysfs-api (cooling devices).
"""

from collections.abc import Iterator
from functools import partial

from edgebit.daemon.sensors.device_files import DeviceFiles, shown
from edgebit.daemon.sensors.hwmon import chips
from edgebit.daemon.sensors.reading import Reading, Unreadable, take

_PWM_MAX = 255


class Fan:
    """fan: per cent of its full speed, from its PWM, or else from its step as a cooling device."""

    every_s = 5.0

    def __init__(self, files: DeviceFiles) -> None:
        self._files = files

    def read(self) -> Iterator[Reading]:
        """fan, in %."""
        for chip in chips(self._files, "pwmfan"):
            path = f"{chip.folder}/pwm1"
            yield take("fan", "%", shown(path), partial(self._percent, path), within=(0, 100))
            return
        for device in self._files.entries("sys/class/thermal", "cooling_device"):
            try:
                kind = self._files.label(f"{device}/type")
            except Unreadable:
                continue
            if "fan" in kind.lower():
                source = f"{shown(device)} ({kind})"
                yield take(
                    "fan",
                    "%",
                    source,
                    partial(self._step, device),
                    within=(0, 100),
                    measured=False,
                )
                return
        yield Reading("fan", "%", None, "/sys/class/hwmon", absent="no fan that the kernel turns")

    def _percent(self, path: str) -> float:
        return round(100 * self._files.number(path) / _PWM_MAX, 1)

    def _step(self, device: str) -> float:
        most = self._files.number(f"{device}/max_state")
        if most <= 0:
            raise Unreadable(f"{shown(device)}/max_state says {most:g}")
        return round(100 * self._files.number(f"{device}/cur_state") / most, 1)
