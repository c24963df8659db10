"""Power from INA chips that the kernel's hwmon drivers read.

INA219, 220, 226, 230, 231: one channel, with a power file. INA3221: three channels, labels, no power files, so
volts times amperes. Everything hangs on the shunt resistor that the driver was told, so it is part of the source.
Source: kernel documentation, hwmon/ina2xx and hwmon/ina3221.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgebit.daemon.sensors.device_files import DeviceFiles, shown
from edgebit.daemon.sensors.hwmon import Chip, chips
from edgebit.daemon.sensors.power import PowerSample
from edgebit.daemon.sensors.reading import NotHere, Unreadable

ONE_CHANNEL = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina232", "ina233")
THREE_CHANNELS = ("ina3221",)
# Channels that carry all that the board draws, by the labels of the boards that have them (NVIDIA Jetson).
TOTAL_LABELS = ("VDD_IN", "POM_5V_IN", "VIN_SYS", "VDD_5V_IN")
_ERROR = 0.02  # 1 % of the shunt resistor, 0.1 to 1 % of the chip


@dataclass(frozen=True, slots=True)
class _Channel:
    volts: float
    amperes: float
    watts: float


class InaPower:
    """The chip, or the channel, that carries what the device draws."""

    kind = "ina"
    every_s = 0.2

    def __init__(self, files: DeviceFiles, wanted: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """`wanted`: a chip's label or address, or a channel's label, where there are several; empty: find it."""
        self._files = files
        self._wanted = wanted
        self._clock = clock

    def read(self) -> PowerSample:
        """Raises NotHere where there is no such chip, Unreadable where it does not answer or must be chosen."""
        found = list(chips(self._files, *ONE_CHANNEL, *THREE_CHANNELS))
        if not found:
            raise NotHere("no INA chip (/sys/class/hwmon)")
        places = [place for chip in found for place in self._places(chip)]
        if self._wanted:
            chosen = [place for place in places if self._wanted in (place[1], place[0].address, place[0].label)]
            if not chosen:
                raise Unreadable(f"no INA chip or channel {self._wanted!r} (there are: {_names(places)})")
        else:
            chosen = [place for place in places if place[1] in TOTAL_LABELS] or places
        if len({chip.folder for chip, *_ in chosen}) > 1:
            raise Unreadable(f"several INA chips: {_names(places)}. Say which in [power]: device")
        return self._sum(chosen)

    def close(self) -> None:
        """Nothing is held."""

    def _places(self, chip: Chip) -> list[tuple[Chip, str, int]]:
        """The chip with its channels: label and number."""
        if chip.name in ONE_CHANNEL:
            return [(chip, chip.label, 1)]
        places = []
        for number in (1, 2, 3):
            if self._enabled(chip, number):
                places.append((chip, self._label(chip, number), number))
        return places

    def _sum(self, places: list[tuple[Chip, str, int]]) -> PowerSample:
        """Of one place, or of an INA3221's channels, of which nobody says whether they are all, or one in another."""
        read = [self._channel(chip, number) for chip, _, number in places]
        chip = places[0][0]
        names = [label or f"channel {number}" for _, label, number in places] if chip.name in THREE_CHANNELS else []
        what = " ".join(word for word in (chip.name, chip.address, chip.label, " + ".join(names)) if word)
        return PowerSample(
            at=self._clock(),
            watts=sum(channel.watts for channel in read),
            source=f"{what} ({self._shunt(*places[0][::2])})",
            measured=len(places) == 1,
            covers="device" if len(places) == 1 else "the sum of the chip's channels",
            error=_ERROR if len(places) == 1 else None,
            raw=tuple(value for channel in read for value in (channel.volts, channel.amperes, channel.watts)),
        )

    def _channel(self, chip: Chip, number: int) -> _Channel:
        one = chip.name in ONE_CHANNEL
        volts = self._files.number(f"{chip.folder}/in{number}_input") / 1000
        amperes = self._files.number(f"{chip.folder}/curr{number}_input") / 1000
        watts = volts * amperes
        if one and amperes >= 0:  # the chip's own product knows no sign
            with contextlib.suppress(NotHere):
                watts = self._files.number(f"{chip.folder}/power1_input") / 1e6
        if not 0 <= volts <= 40:  # what the chips stand
            raise Unreadable(f"{shown(chip.folder)}/in{number}_input says {volts:g} V, which cannot be")
        return _Channel(volts, amperes, watts)

    def _shunt(self, chip: Chip, number: int) -> str:
        name = "shunt_resistor" if chip.name in ONE_CHANNEL else f"shunt{number}_resistor"
        try:
            return f"shunt {self._files.number(f'{chip.folder}/{name}') / 1e6:g} ohm"
        except Unreadable:
            return "shunt resistor not known"

    def _enabled(self, chip: Chip, number: int) -> bool:
        if not self._files.has(f"{chip.folder}/curr{number}_input"):
            return False
        try:
            return self._files.number(f"{chip.folder}/in{number}_enable") != 0
        except Unreadable:
            return True

    def _label(self, chip: Chip, number: int) -> str:
        try:
            return self._files.label(f"{chip.folder}/in{number}_label")
        except Unreadable:
            return ""


def _names(places: list[tuple[Chip, str, int]]) -> str:
    return ", ".join(f"{chip.name} {chip.address}{' ' + label if label else ''}" for chip, label, _ in places)
