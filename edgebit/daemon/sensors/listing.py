"""All readings of a device once, and as a table: what `edgebitd sensors` and `edgebit sensors` print."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from edgebit.daemon.sensors.sampler import Sampler

_PATIENCE_S = 10.0
_LOOKS = 2  # a program that is asked may answer after the first


def take_all(sampler: Sampler, *, wait: Callable[[float], None] = time.sleep) -> dict[str, dict[str, Any]]:
    """Look until power is known or known not to be, and give all readings by name, as metrics have them."""
    waited_s, looks = 0.0, 0
    while True:
        pause_s = sampler.sample()
        looks += 1
        if looks >= _LOOKS and (waited_s >= _PATIENCE_S or not sampler.power_is_asked):
            return {name: reading.to_json() for name, reading in sampler.readings().items()}
        wait(pause_s)
        waited_s += pause_s


def table(readings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line each: name, value, unit, age and source; of an absent one the reason."""
    width = max(map(len, readings), default=0)
    return [f"{name:<{width}}  {_row(reading)}" for name, reading in readings.items()]


def _row(reading: Mapping[str, Any]) -> str:
    if "value" not in reading:
        return f"{'-':>9}          {reading['absent']}"
    source = reading["source"] if reading["measured"] else f"{reading['source']} (not measured)"
    unit = "" if reading["unit"] == "1" else reading["unit"]
    return f"{reading['value']:>9.6g} {unit:<3} {reading['age_s']:>4.0f} s {source}"
