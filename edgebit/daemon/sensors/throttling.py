"""Whether the device is held back, now and since the daemon's start.

A Raspberry Pi's firmware has bits for `now` and sticky ones for `has occurred`, which others may clear: the kernel's
own driver does, every two seconds. So `_seen` is counted here, from the live bits, and the sticky ones only add to it.
Elsewhere a cooling device of the processor that is not at rest is the portable sign.
Source: Raspberry Pi documentation, vcgencmd get_throttled; kernel documentation, hwmon/raspberrypi-hwmon,
driver-api/thermal/sysfs-api.
"""

from collections.abc import Iterator, Mapping

from edgebit.daemon.sensors.device_files import DeviceFiles, shown
from edgebit.daemon.sensors.firmware import Firmware, Said
from edgebit.daemon.sensors.hwmon import chips
from edgebit.daemon.sensors.reading import Reading, Unreadable

BITS = {"undervoltage": 0, "freq_capped": 1, "throttled": 2, "soft_temp_limit": 3}
_OCCURRED = 16  # a bit's sticky twin is so much higher
_OURS = "seen by edgebit since its start"
_CPU_COOLING = ("cpufreq", "Processor", "cpu-idle")


class Throttling:
    """undervoltage, freq_capped, throttled, soft_temp_limit: 0 or 1 now, and with `_seen` since the start."""

    every_s = 1.0  # a bit that is set for less than this may be missed

    def __init__(self, files: DeviceFiles, firmware: Firmware) -> None:
        self._files = files
        self._firmware = firmware
        self._seen: dict[str, float] = {}  # 1 once it was so; 0 where it could be read and was not

    def read(self) -> Iterator[Reading]:
        """Each of the four, then each with `_seen`."""
        live = list(self._live())
        yield from live
        for reading in live:
            name = f"{reading.name}_seen"
            if reading.value is not None:
                self._seen[reading.name] = max(self._seen.get(reading.name, 0.0), reading.value)
            if reading.name in self._seen:
                yield Reading(name, "1", self._seen[reading.name], _OURS, reading.age_s)
            else:
                yield Reading(name, "1", None, _OURS, absent=reading.absent)

    def _live(self) -> Iterator[Reading]:
        try:
            said = self._firmware.throttled()
        except Unreadable as why:
            yield from self._without_firmware(why)
            return
        if said.value >> 20 or said.value >> 4 & 0xFFF:
            nonsense = Unreadable(f"{said.source} says {said.value:#x}, which has bits that mean nothing")
            yield from (_absent(name, said.source, nonsense) for name in BITS)
            return
        for name, bit in BITS.items():
            if said.value >> bit + _OCCURRED & 1:
                self._seen[name] = 1.0
            yield _bit(name, bit, said)

    def _without_firmware(self, why: Unreadable) -> Iterator[Reading]:
        others = {"undervoltage": self._alarm, "throttled": self._cooling}
        for name in BITS:
            reading = others[name]() if name in others else None
            yield reading or _absent(name, "vcgencmd get_throttled", why)

    def _alarm(self) -> Reading | None:
        """The kernel's own look at the firmware's bit, at most 2 s old."""
        for chip in chips(self._files, "rpi_volt"):
            path = f"{chip.folder}/in0_lcrit_alarm"
            try:
                return Reading("undervoltage", "1", float(self._files.number(path) > 0), shown(path), age_s=2.0)
            except Unreadable:
                return None
        return None

    def _cooling(self) -> Reading | None:
        """The kernel's own throttling: how far the processor's cooling devices are from rest."""
        states = []
        for device in self._files.entries("sys/class/thermal", "cooling_device"):
            try:
                if any(word in self._files.label(f"{device}/type") for word in _CPU_COOLING):
                    states.append(self._files.number(f"{device}/cur_state"))
            except Unreadable:
                continue
        if not states:
            return None
        source = "/sys/class/thermal/cooling_device*/cur_state of the processor"
        return Reading("throttled", "1", float(max(states) > 0), source)


def held_back(readings: Mapping[str, Reading]) -> bool | None:
    """Whether heat or supply hold the device back now; None where nothing can tell."""
    values = [readings[name].value for name in ("freq_capped", "throttled", "soft_temp_limit") if name in readings]
    known = [value for value in values if value is not None]
    return any(known) if known else None


def _bit(name: str, bit: int, said: Said) -> Reading:
    return Reading(name, "1", float(said.value >> bit & 1), f"{said.source} bit {bit}", round(said.age_s, 3))


def _absent(name: str, source: str, why: Unreadable) -> Reading:
    return Reading(name, "1", None, source, absent=str(why))
