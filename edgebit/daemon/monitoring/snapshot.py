"""All figures of a moment, from the places that know them. What cannot be known is None."""

from collections.abc import Mapping
from typing import Any

from edgebit.daemon.monitoring.quantities import QUANTITIES, rounded
from edgebit.daemon.sensors.reading import Reading

Snapshot = dict[str, float | None]

# A sensor's name: the figure that it is.
SENSOR_FIGURES = {
    "load_1m": "load_1m",
    "psi_cpu": "psi_cpu",
    "psi_memory": "psi_memory",
    "psi_io": "psi_io",
    "disk_free": "disk_free_mib",
    "t_soc": "t_soc",
    "clock": "clock_mhz",
    "throttled": "throttled",
    "undervoltage": "undervoltage",
    "fan": "fan_percent",
    "power": "power_w",
    "battery": "battery_percent",
}
COUNTS = tuple(quantity.name for quantity in QUANTITIES if quantity.kind == "count")


class LostSensors:
    """Sensors that gave a value once, and how many of them give none now."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def count(self, readings: Mapping[str, Reading]) -> float:
        """Take the readings of now; gives how many are lost."""
        self._seen |= {name for name, reading in readings.items() if reading.value is not None}
        self._seen -= {name for name, reading in readings.items() if reading.value is None and not reading.is_lost}
        return float(sum(1 for name in self._seen if name not in readings or readings[name].value is None))


def snapshot_of(
    *,
    readings: Mapping[str, Reading],
    process: Mapping[str, float | None],
    window: Mapping[str, float | None],
    counts: Mapping[str, float],
    now: Mapping[str, float | None],
    sensors_lost: float,
) -> Snapshot:
    """The figures by name. `counts` are since the daemon's start; `now` is what the scheduler does, and goes first."""
    found: Snapshot = {quantity.name: None for quantity in QUANTITIES}
    for sensor, figure in SENSOR_FIGURES.items():
        if sensor in readings:
            found[figure] = readings[sensor].value
    energy = readings.get("energy_total")
    found["energy_j"] = energy.value if energy is not None else None
    found["memory_percent"] = _memory_percent(readings)
    found |= {**process, **window}
    found |= {name: float(counts.get(name, 0)) for name in COUNTS if name != "energy_j"}
    found |= {name: value for name, value in now.items() if value is not None}
    found["sensors_lost"] = sensors_lost
    return found


def since(before: Mapping[str, float | None], after: Snapshot) -> Snapshot:
    """The snapshot with its counts as what has come since the one before; a count that began anew counts from 0."""
    changed = dict(after)
    for name in COUNTS:
        was, value = before.get(name), after.get(name)
        if value is not None:
            changed[name] = value - was if was is not None and was <= value else value
    return changed


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """For `metrics`: rounded, and without the point where nothing is behind it."""
    return {name: rounded(value) for name, value in snapshot.items()}


def _memory_percent(readings: Mapping[str, Reading]) -> float | None:
    total, available = readings.get("mem_total"), readings.get("mem_available")
    if total is None or available is None or not total.value or available.value is None:
        return None
    return 100.0 * (1 - available.value / total.value)
