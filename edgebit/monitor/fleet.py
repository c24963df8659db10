"""The devices that are watched: a bounded set, fed with messages, and put in order."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgebit.daemon.contract.topics import is_segment
from edgebit.monitor.device import KINDS, Device, Sample, told, with_history

DEVICES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Sorting:
    """An order: by a figure, or by the name; unknown figures come last either way."""

    figure: str = ""  # empty: by name
    least_first: bool = False


SORTINGS = {
    "name": Sorting(least_first=True),
    "temp": Sorting("temperature"),
    "headroom": Sorting("headroom", least_first=True),
    "tok_s": Sorting("tok_s"),
    "queue": Sorting("queue"),
    "active": Sorting("active"),
    "power": Sorting("power"),
    "clock": Sorting("clock", least_first=True),
    "errors": Sorting("errors"),
}


class Fleet:
    """Fed and read from any thread: devices never change in place, and are put in their places one at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._devices: dict[str, Device] = {}
        self._lock = threading.Lock()
        self.left_out = False  # whether there were more devices than there is room for
        self.trouble = ""  # what is wrong with the connection now

    def hear(self, name: str, kind: str, payload: bytes, *, retained: bool = False) -> None:
        """Take a message; what is none of a device's is left aside."""
        if kind not in KINDS or not is_segment(name):
            return
        with self._lock:
            if kind == "availability" and not payload:  # whoever clears it takes the device away
                self._devices.pop(name, None)
                return
            now = self._clock()
            known = self._devices.get(name)
            if known is None:
                if len(self._devices) >= DEVICES_MAX:
                    self.left_out = True
                    return
                known = Device(name=name, began=now, heard=now)
            self._devices[name] = told(known, kind, payload, now, retained=retained)

    def remember(self, name: str, past: Iterable[Sample]) -> None:
        """Put a device's own history before what has been seen of it."""
        samples = list(past)
        with self._lock:
            if (known := self._devices.get(name)) is not None:
                self._devices[name] = with_history(known, samples)

    def devices(self) -> list[Device]:
        """All that have said whether they are there, in no order."""
        with self._lock:
            return [device for device in self._devices.values() if device.availability]


def ordered(devices: Iterable[Device], sort: str, *, reverse: bool = False) -> list[Device]:
    """Devices by one of SORTINGS; those of which the figure is not known, or that are not there, at the end."""
    sorting = SORTINGS[sort]
    by_name = sorted(devices, key=lambda device: device.name)
    if not sorting.figure:
        return by_name[::-1] if reverse else by_name

    def value(device: Device) -> float | None:
        return device.figures.get(sorting.figure) if device.availability == "online" else None

    known = [(found, device) for device in by_name if (found := value(device)) is not None]
    sign = 1 if sorting.least_first != reverse else -1
    known.sort(key=lambda item: sign * item[0])
    return [device for _, device in known] + [device for device in by_name if value(device) is None]
