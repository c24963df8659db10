"""A device for scripts: one flat object."""

from typing import Any

from edgebit.monitor.device import Device
from edgebit.monitor.figures import FIGURES

_NAMES = {  # with the unit in the name
    "temperature": "temperature_c",
    "headroom": "headroom_c",
    "clock": "clock_mhz",
    "power": "power_w",
    "p95": "latency_p95_ms",
    "joules": "joules_per_token",
    "memory": "rss_mib",
    "fan": "fan_percent",
    "battery": "battery_percent",
    "uptime": "uptime_s",
}
_FLAGS = ("throttled", "undervoltage")


def report(device: Device, now: float) -> dict[str, Any]:
    """The figures of now; those of a device that is not online, and those that are not known, are null."""
    online = device.availability == "online"
    figures = {
        _NAMES.get(name, name): _whole(device.figures.get(name), each.digits) if online else None
        for name, each in FIGURES.items()
    }
    flags = {name: None if figures[name] is None else bool(figures[name]) for name in _FLAGS}
    return {
        "device": device.name,
        "availability": device.availability,
        "stale": device.is_stale(now),
        "state": (device.state or None) if online else None,
        **figures,
        **flags,
        "held_back": (device.held_back or None) if online else None,
        "alerts": [alert._asdict() for alert in device.alerts] if online else [],
        "last_error": device.last_error or None,
        "model": device.model or None,
        "bundle": device.bundle or None,
        "heard_s_ago": round(now - device.heard, 1),
    }


def _whole(value: float | None, digits: int) -> float | None:
    """A figure that is shown without digits behind the point, as a whole number where it is one."""
    return int(value) if value is not None and not digits and float(value).is_integer() else value
