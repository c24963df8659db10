"""All that the device knows of itself at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.sensors.reading import Reading

OWN = "the daemon"  # the source of figures that no sensor gives


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFacts:
    """Figures of sensors and of the daemon, and what it is connected to and answers with."""

    figures: Mapping[str, Reading]
    connected: bool
    broker: str  # host and port
    protocol: str  # of MQTT: "5", "3.1.1"
    encrypted: bool
    described: Mapping[str, Any]  # the engine's part of `info`

    def figure(self, name: str) -> Reading:
        """One of the figures, absent where there is none of that name."""
        return self.figures.get(name) or Reading(name, "1", None, OWN, absent="there is no such figure here")


def own_figure(name: str, unit: str, value: float | None, absent: str = "") -> Reading:
    """A figure that the daemon itself has counted or measured."""
    return Reading(name, unit, value, OWN, absent=absent if value is None else "")
