"""Which figures of a device are shown, and where in its messages they stand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgebit.monitor.published import figure, flag, inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure: its unit, its digits behind the point, and its places, the first that is there counting."""

    unit: str = ""
    digits: int = 0
    status: str = ""  # field of status
    metrics: str = ""  # field of metrics
    sensor: str = ""  # name of a reading in metrics
    read: Callable[[Any], float | None] = figure
    change: float = 0.0  # that is worth the full height of a sparkline

    def text(self, value: float | None) -> str:
        """The value as shown, without its unit; empty where there is none."""
        return "" if value is None else f"{value:.{self.digits}f}" if abs(value) < 1e6 else f"{value:.1e}"


FIGURES = {
    "temperature": Figure(unit="°C", digits=1, status="t_soc", metrics="t_soc", sensor="t_soc", change=10),
    "headroom": Figure(unit="°C", digits=1, status="headroom_c"),
    "clock": Figure(unit="MHz", metrics="clock_mhz", sensor="clock", change=500),
    "throttled": Figure(status="throttled", metrics="throttled", sensor="throttled", read=flag),
    "undervoltage": Figure(metrics="undervoltage", sensor="undervoltage", read=flag),
    "power": Figure(unit="W", digits=1, status="power_w", metrics="power_w", sensor="power", change=1),
    "tok_s": Figure(unit="tok/s", digits=1, status="tok_s_now", metrics="tok_s", change=2),
    "queue": Figure(status="queue_len", metrics="queued", change=4),
    "active": Figure(metrics="active"),
    "answered": Figure(metrics="answered"),
    "errors": Figure(metrics="failed"),
    "p95": Figure(unit="ms", metrics="latency_p95_ms"),
    "joules": Figure(unit="J/token", digits=2, metrics="joules_per_token"),
    "memory": Figure(unit="MiB", metrics="rss_mib"),
    "fan": Figure(unit="%", metrics="fan_percent", sensor="fan"),
    "battery": Figure(unit="%", metrics="battery_percent", sensor="battery"),
    "uptime": Figure(unit="s", status="uptime_s", metrics="uptime_s"),
}


def figures_of(kind: str, body: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures that a status or metrics message tells, the unknown ones as None; those it has no place for aside."""
    found: dict[str, float | None] = {}
    readings, counters = _object(body.get("sensors")), _object(body.get("counters"))
    for name, each in FIGURES.items():
        field = each.status if kind == "status" else each.metrics
        if field and field in body:
            found[name] = each.read(body[field])
        elif kind == "metrics" and each.sensor in readings:
            found[name] = each.read(inside(readings[each.sensor], "value"))
        elif kind == "metrics" and field in counters:
            found[name] = each.read(counters[field])
    return found


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
