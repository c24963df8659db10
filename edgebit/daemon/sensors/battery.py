"""The battery: its charge, temperature, whether it is being charged, and whether it need not feed the device.

From the power_supply class where that may be read, which apps on Android may not; there from Termux:API's
`termux-battery-status`, which hangs for ever where that app is not installed.
Source: kernel documentation, ABI/testing/sysfs-class-power; termux-api, BatteryStatusAPI.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgebit.daemon.sensors.command import Command
from edgebit.daemon.sensors.device_files import DeviceFiles, shown
from edgebit.daemon.sensors.reading import NotHere, Reading, Unreadable, take

_CLASS = "sys/class/power_supply"
_SANE_C = (-40.0, 100.0)
_TERMUX_LIMIT_S = 10.0  # it starts an app
_TERMUX_EVERY_S = 60.0
_CHARGING = {"charging": 1.0, "discharging": 0.0, "not charging": 0.0, "full": 0.0}


_OUTER = ("Mains", "USB", "Wireless")  # what types of supplies begin with that bring power from outside


def batteries(files: DeviceFiles) -> Iterator[str]:
    """Folders of the device's own batteries, not those of its mouse."""
    for folder in files.entries(_CLASS):
        try:
            if files.label(f"{folder}/type") != "Battery":
                continue
        except Unreadable:
            continue
        if _text(files, f"{folder}/scope") != "Device" and _text(files, f"{folder}/present") != "0":
            yield folder


class Battery:
    """battery, t_battery, charging and mains."""

    every_s = 10.0

    def __init__(self, files: DeviceFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._termux = Command(
            files,
            ["termux-battery-status"],
            limit_s=_TERMUX_LIMIT_S,
            hint=" (is the Termux:API app installed?)",
            clock=clock,
        )
        self._asked: TermuxBattery | Unreadable | None = None
        self._asked_at = 0.0

    def read(self) -> Iterator[Reading]:
        """%, C, and 0 or 1 twice."""
        folder = next(batteries(self._files), None)
        if folder is not None:
            yield from self._from_kernel(folder)
            return
        try:
            found = self._from_termux()
        except NotHere:
            why = "no battery" if self._files.has(_CLASS) else f"{shown(_CLASS)} is not there or forbidden to apps"
            yield from _all_absent(shown(_CLASS), why)
        except Unreadable as why:
            yield from _all_absent(self._termux.shown, str(why))
        else:
            yield from found.readings(self._clock() - self._asked_at)

    def close(self) -> None:
        """End a program that still runs."""
        self._termux.close()

    def _from_kernel(self, folder: str) -> Iterator[Reading]:
        def number(name: str, divisor: float = 1) -> float:
            return self._files.number(f"{folder}/{name}") / divisor

        source = shown(folder)
        yield take("battery", "%", f"{source}/capacity", lambda: number("capacity"), within=(0, 100))
        yield take("t_battery", "C", f"{source}/temp", lambda: number("temp", 10), within=_SANE_C)
        yield take("charging", "1", f"{source}/status", lambda: _charging(self._files.text(f"{folder}/status")))
        yield take("mains", "1", source, lambda: _mains(self._files.text(f"{folder}/status"), self._is_plugged()))

    def _is_plugged(self) -> bool | None:
        """Whether power comes from outside; None where nothing says it."""
        outer = [
            _text(self._files, f"{folder}/online")
            for folder in self._files.entries(_CLASS)
            if (_text(self._files, f"{folder}/type") or "").startswith(_OUTER)
            and _text(self._files, f"{folder}/scope") != "Device"
        ]
        said = [online != "0" for online in outer if online is not None]
        return any(said) if said else None

    def _from_termux(self) -> "TermuxBattery":
        """At most once a minute. Raises Unreadable."""
        now = self._clock()
        if isinstance(self._asked, TermuxBattery) and now - self._asked_at < _TERMUX_EVERY_S:
            return self._asked
        text, age_s = self._termux.output()
        self._asked, self._asked_at = parse_termux(text), now - age_s
        return self._asked


@dataclass(frozen=True, slots=True, kw_only=True)
class TermuxBattery:
    """What `termux-battery-status` says of a battery; None where it leaves a key out or says null.

    Its current is not here: of small ones it multiplies some by 1000, phones differ in sign and unit, and under load
    they were found to be wrong.
    """

    percent: float | None
    celsius: float | None
    status: str | None
    plugged: bool | None

    def readings(self, age_s: float) -> Iterator[Reading]:
        """battery, t_battery, charging and mains."""

        def known(value: float | None, key: str) -> float:
            if value is None:
                raise Unreadable(f"termux-battery-status does not say {key}")
            return value

        for reading in (
            take("battery", "%", _termux("percentage"), lambda: known(self.percent, "percentage"), within=(0, 100)),
            take("t_battery", "C", _termux("temperature"), lambda: known(self.celsius, "temperature"), within=_SANE_C),
            take("charging", "1", _termux("status"), lambda: _charging(self.status or "UNKNOWN")),
            take("mains", "1", _termux("plugged"), lambda: _mains(self.status or "UNKNOWN", self.plugged)),
        ):
            yield reading.older(max(age_s, 0.0))


def parse_termux(text: str) -> TermuxBattery:
    """Raises Unreadable where the text is not the JSON object that the program prints."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"termux-battery-status says {text[:60]!r}") from error
    if not isinstance(body, dict):
        raise Unreadable(f"termux-battery-status says {text[:60]!r}")
    if body.get("present") is False:
        raise Unreadable("termux-battery-status says that no battery is present")
    status, plugged = body.get("status"), body.get("plugged")
    return TermuxBattery(
        percent=_number(body.get("percentage")),
        celsius=_number(body.get("temperature")),
        status=status if isinstance(status, str) else None,
        plugged=plugged.startswith("PLUGGED") if isinstance(plugged, str) else None,
    )


def _number(value: object) -> float | None:
    """Some versions write numbers as strings."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _charging(status: str) -> float:
    said = status.lower().replace("_", " ")
    if said not in _CHARGING:
        raise Unreadable(f"its status is {status[:40]!r}")
    return _CHARGING[said]


def _mains(status: str, plugged: bool | None) -> float:
    """Whether the device need not live on its battery: one that is not charged, for its sake, may be plugged in.

    A battery that is discharged beside a supply that is too weak feeds the device.
    """
    said = status.lower().replace("_", " ")
    if said in ("charging", "discharging"):
        return float(said == "charging")
    if plugged is None and said not in _CHARGING:
        raise Unreadable(f"its status is {status[:40]!r}, and no supply says whether it is online")
    return float(plugged is not False)


def _termux(key: str) -> str:
    return f"termux-battery-status {key}"


def _all_absent(source: str, why: str) -> Iterator[Reading]:
    for name, unit in (("battery", "%"), ("t_battery", "C"), ("charging", "1"), ("mains", "1")):
        yield Reading(name, unit, None, source, absent=why)


def _text(files: DeviceFiles, name: str) -> str | None:
    try:
        return files.label(name)
    except Unreadable:
        return None
