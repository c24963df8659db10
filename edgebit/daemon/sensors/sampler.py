"""Reads all sensors in a thread of its own, each as often as it is worth, and holds what they last said.

A sensor that hangs makes readings old, never the daemon slow: who asks gets them with their true ages, and as absent
once they are too old to say anything.
"""

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgebit.daemon.sensors.energy_ledger import EnergyLedger
from edgebit.daemon.sensors.power import Power, power_reading
from edgebit.daemon.sensors.reading import NothingNow, NotYet, Reading, Unreadable

log = logging.getLogger("edgebit.sensors")

_UNEVEN = (0.5, 1.5)  # of the interval during work: samples in step with the engine's passes would all see the same
_STALE_S = 15.0  # at least; and three times as long as a sensor takes from one look to the next


class Sensor(Protocol):
    """One kind of sensor, as the modules beside this one are."""

    every_s: float

    def read(self) -> Iterable[Reading]:
        """Always the same names; absent ones are among them."""


@dataclass(slots=True)
class _Slot:
    sensor: Sensor
    every_s: float
    due: float = 0.0
    taken: float = 0.0
    readings: list[Reading] = field(default_factory=list)


class Sampler:
    """sample() and run() in one thread; the rest from any."""

    def __init__(
        self,
        sensors: Sequence[Sensor],
        power: Power,
        ledger: EnergyLedger,
        *,
        interval_s: float = 1.0,
        busy_interval_s: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        """`interval_s`: between two looks at the most frequent sensors; `busy_interval_s`: at power, during work."""
        self._slots = [_Slot(sensor, max(sensor.every_s, interval_s)) for sensor in sensors]
        self._power = power
        self.energy = ledger
        self._interval_s = interval_s
        self._busy_interval_s = busy_interval_s
        self._clock = clock
        self._chance = chance or random.Random()
        self._lock = threading.Lock()
        self._power_reading = Reading("power", "W", None, "", absent="not looked at yet")
        self._power_taken = clock()
        self.power_is_asked = False  # and has not answered yet, as it will
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until stop()."""
        while not self._stopping.is_set():
            wait_s = self.sample()
            self.energy.work_began.clear()
            if self.energy.at_work():
                self._stopping.wait(wait_s)
            else:
                self.energy.work_began.wait(wait_s)
        self.close()

    def stop(self) -> None:
        """Let run() return."""
        self._stopping.set()
        self.energy.work_began.set()

    def close(self) -> None:
        """Let all sensors go; run() does it at its end."""
        self._power.close()
        for slot in self._slots:
            if (close := getattr(slot.sensor, "close", None)) is not None:
                close()

    def sample(self) -> float:
        """Look at power, and at each sensor that is due; gives the seconds until the next look."""
        began = self._clock()
        self._sample_power()
        for slot in self._slots:
            if self._clock() >= slot.due:
                slot.due = self._clock() + slot.every_s - 0.01  # a wait may end a moment early
                self._sample_slot(slot)
        interval_s = self._interval_s
        if self.energy.at_work():
            busy_s = max(self._busy_interval_s, self._power.every_s) * self._chance.uniform(*_UNEVEN)
            interval_s = min(interval_s, busy_s)
        return max(began + interval_s - self._clock(), 0.01)

    def readings(self) -> dict[str, Reading]:
        """All by name, with their ages as of now."""
        now = self._clock()
        found: dict[str, Reading] = {}
        with self._lock:
            for slot in self._slots:
                limit_s = max(3 * slot.every_s, _STALE_S)
                for reading in slot.readings:
                    found[reading.name] = _aged(reading, now - slot.taken, limit_s)
            limit_s = max(3 * self._interval_s, _STALE_S)
            found["power"] = _aged(self._power_reading, now - self._power_taken, limit_s)
        found["energy_total"] = self.energy.total()
        return found

    def _sample_power(self) -> None:
        self.power_is_asked = False
        try:
            sample = self._power.sample()
        except Unreadable as why:
            self.energy.lost(str(why))
            self.power_is_asked = isinstance(why, NotYet)
            reading = Reading("power", "W", None, "", absent=str(why), is_lost=not isinstance(why, NothingNow))
        except Exception:
            log.exception("reading power failed by a fault of ours")
            reading = Reading("power", "W", None, "", absent="a fault of ours; the log says how")
        else:
            self.energy.add(sample)
            reading = power_reading(sample, self._clock())
        with self._lock:
            self._power_reading, self._power_taken = reading, self._clock()

    def _sample_slot(self, slot: _Slot) -> None:
        try:
            readings = list(slot.sensor.read())
        except Exception:
            log.exception("reading %s failed by a fault of ours", type(slot.sensor).__name__)
            readings = [
                dataclasses.replace(reading, value=None, absent="a fault of ours; the log says how")
                for reading in slot.readings
            ]
        with self._lock:
            slot.readings, slot.taken = readings, self._clock()


def _aged(reading: Reading, seconds: float, limit_s: float) -> Reading:
    aged = reading.older(max(seconds, 0.0))
    if reading.value is not None and seconds > limit_s:
        return dataclasses.replace(aged, value=None, absent=f"its last reading is {seconds:.0f} s old")
    return aged
