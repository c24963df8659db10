"""The device's figures under Prometheus' names: base units, _total for counts, the same from the port and an export."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edgebit.daemon.monitoring.exposition import Family, Sample
from edgebit.daemon.monitoring.quantities import QUANTITIES
from edgebit.daemon.monitoring.snapshot import SENSOR_FIGURES

MIB = 2.0**20
_NO_LABELS: Mapping[str, str] = MappingProxyType({})
_GREATEST = 1e18  # of a figure that is believed; NaN is none either


@dataclass(frozen=True, slots=True)
class _Series:
    """What a figure is called, and what it is multiplied by to be in the base unit."""

    name: str
    scale: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)


SERIES = {
    "active": _Series("edgebit_jobs_running"),
    "queued": _Series("edgebit_jobs_queued"),
    "answered": _Series("edgebit_jobs", labels={"outcome": "answered"}),
    "failed": _Series("edgebit_jobs", labels={"outcome": "failed"}),
    "refused": _Series("edgebit_jobs", labels={"outcome": "refused"}),
    "cancelled": _Series("edgebit_jobs", labels={"outcome": "cancelled"}),
    "error_rate": _Series("edgebit_errors_ratio"),
    "prompt_tokens": _Series("edgebit_tokens", labels={"kind": "prompt"}),
    "reused_tokens": _Series("edgebit_tokens", labels={"kind": "prompt_reused"}),
    "answer_tokens": _Series("edgebit_tokens", labels={"kind": "answer"}),
    "cache_hits": _Series("edgebit_answer_cache", labels={"result": "hit"}),
    "cache_misses": _Series("edgebit_answer_cache", labels={"result": "miss"}),
    "tok_s": _Series("edgebit_decode_tokens_per_second"),
    "prompt_tok_s": _Series("edgebit_prefill_tokens_per_second"),
    "latency_p50_ms": _Series("edgebit_answer_seconds", 1e-3, {"quantile": "0.5"}),
    "latency_p95_ms": _Series("edgebit_answer_seconds", 1e-3, {"quantile": "0.95"}),
    "latency_p99_ms": _Series("edgebit_answer_seconds", 1e-3, {"quantile": "0.99"}),
    "first_token_p50_ms": _Series("edgebit_first_token_seconds", 1e-3, {"quantile": "0.5"}),
    "first_token_p95_ms": _Series("edgebit_first_token_seconds", 1e-3, {"quantile": "0.95"}),
    "rss_mib": _Series("edgebit_process_memory_bytes", MIB, {"pages": "own"}),
    "rss_mapped_mib": _Series("edgebit_process_memory_bytes", MIB, {"pages": "mapped"}),
    "cpu_percent": _Series("edgebit_process_cpu_ratio", 0.01),
    "cpu_busy_percent": _Series("edgebit_device_cpu_busy_ratio", 0.01),
    "memory_percent": _Series("edgebit_device_memory_used_ratio", 0.01),
    "disk_free_mib": _Series("edgebit_disk_free_bytes", MIB),
    "load_1m": _Series("edgebit_device_load1"),
    "psi_cpu": _Series("edgebit_pressure_ratio", 0.01, {"resource": "cpu"}),
    "psi_memory": _Series("edgebit_pressure_ratio", 0.01, {"resource": "memory"}),
    "psi_io": _Series("edgebit_pressure_ratio", 0.01, {"resource": "io"}),
    "t_soc": _Series("edgebit_temperature_celsius", labels={"sensor": "t_soc"}),
    "clock_mhz": _Series("edgebit_clock_hertz", 1e6, {"sensor": "clock"}),
    "throttled": _Series("edgebit_throttled"),
    "undervoltage": _Series("edgebit_undervoltage"),
    "fan_percent": _Series("edgebit_fan_ratio", 0.01),
    "power_w": _Series("edgebit_power_watts", labels={"sensor": "power"}),
    "energy_j": _Series("edgebit_energy_joules"),
    "joules_per_token": _Series("edgebit_answer_token_joules"),
    "battery_percent": _Series("edgebit_battery_ratio", 0.01),
    "sensors_lost": _Series("edgebit_sensors_lost"),
}
# Sensors that are no figure of a snapshot, by their unit.
_BY_UNIT = {
    "C": _Series("edgebit_temperature_celsius"),
    "MHz": _Series("edgebit_clock_hertz", 1e6),
    "W": _Series("edgebit_power_watts"),
    "MiB": _Series("edgebit_sensor_bytes", MIB),
    "%": _Series("edgebit_sensor_ratio", 0.01),
    "s": _Series("edgebit_sensor_seconds"),
    "1": _Series("edgebit_sensor"),
}
_HELP = {
    "edgebit_jobs": "Requests by how they ended.",
    "edgebit_tokens": "Tokens of prompts, of these reused ones, and of answers.",
    "edgebit_answer_cache": "Answers by whether the answer cache had them.",
    "edgebit_answer_seconds": "From admission to the last frame, quantiles over the last 300 s.",
    "edgebit_first_token_seconds": "From admission to the first token, quantiles over the last 300 s.",
    "edgebit_process_memory_bytes": "Resident memory of the daemon.",
    "edgebit_pressure_ratio": "Share of the last 10 s in which something waited for the resource.",
    "edgebit_temperature_celsius": "Temperatures.",
    "edgebit_clock_hertz": "Clock of the fastest core.",
    "edgebit_power_watts": "Power.",
    "edgebit_sensor_bytes": "Sensors that tell a size.",
    "edgebit_sensor_ratio": "Sensors that tell a share.",
    "edgebit_sensor_seconds": "Sensors that tell a time.",
    "edgebit_sensor": "Sensors without a unit.",
}
_KINDS = {quantity.name: quantity.kind for quantity in QUANTITIES}
_MEANINGS = {quantity.name: quantity.meaning for quantity in QUANTITIES}


class Families:
    """Families by name, in the order in which they came."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def add(self, name: str, kind: str, help: str, sample: Sample) -> None:
        """Put a sample into its family."""
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = Family(name, kind, help)  # type: ignore[arg-type]
        family.samples.append(sample)

    def figure(self, name: str, value: float, at: float | None = None, labels: Mapping[str, str] = _NO_LABELS) -> None:
        """Put a figure of a snapshot into its family; a count is the sum since some beginning."""
        series = SERIES[name]
        # A summary's quantiles must stand together by time, and its parts by series: with times they are gauges.
        is_summary = "quantile" in series.labels and at is None
        kind = "summary" if is_summary else "counter" if _KINDS[name] == "count" else "gauge"
        meaning = _MEANINGS[name]
        help = _HELP.get(series.name, f"{meaning[0].upper()}{meaning[1:]}.")
        self.add(series.name, kind, help, Sample(value * series.scale, {**series.labels, **labels}, at=at))

    def all(self) -> list[Family]:
        """All of them."""
        return list(self._families.values())


def families_of(metrics: Mapping[str, Any], about: Mapping[str, str]) -> list[Family]:
    """The families of a `metrics` message; `about` are the labels of edgebit_info."""
    families = Families()
    families.add("edgebit_info", "gauge", "What runs here; always 1.", Sample(1, dict(about)))
    if _is_number(metrics.get("uptime_s")):
        families.add("edgebit_uptime_seconds", "gauge", "Since the daemon's start.", Sample(float(metrics["uptime_s"])))
    for name in SERIES:
        if _is_number(metrics.get(name)):
            families.figure(name, float(metrics[name]))
    totals = _mapping(metrics, "totals")
    for name, key in (("edgebit_answer_seconds", "answer_s"), ("edgebit_first_token_seconds", "first_token_s")):
        for suffix, part in (("_sum", key), ("_count", f"{key}_count")):
            if _is_number(totals.get(part)):
                families.add(name, "summary", _HELP[name], Sample(float(totals[part]), suffix=suffix))
    _count(families, "edgebit_errors", "Requests that ended with an error, by its code.", "code", metrics, "errors")
    _count(families, "edgebit_events", "What the daemon counts.", "event", metrics, "counters")
    _sensors(families, _mapping(metrics, "sensors"))
    alerts = metrics.get("alerts")
    for alert in alerts if isinstance(alerts, list) else ():
        if not isinstance(alert, Mapping):
            continue
        labels = {"name": str(alert.get("name")), "severity": str(alert.get("severity"))}
        families.add("edgebit_alert", "gauge", "Alerts that are raised; each is 1.", Sample(1, labels))
    for level, holds in _mapping(metrics, "health").items():
        if isinstance(holds, bool):
            help = "1 where the level of health holds, 0 where not."
            families.add("edgebit_health", "gauge", help, Sample(float(holds), {"level": str(level)}))
    return families.all()


def families_of_rows(
    columns: Sequence[str], rows: Iterable[Sequence[float | int | None]], labels: Mapping[str, str] = _NO_LABELS
) -> list[Family]:
    """The families of a history, each sample with its time: gauges by their mean, counts summed up from 0."""
    families = Families()
    sums: dict[str, float] = {}
    places = [(position, name) for position, name in enumerate(columns) if name in SERIES]
    samples: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for position, name in places:
            value = row[position]
            if value is None:
                continue
            if _KINDS[name] == "count":
                value = sums[name] = sums.get(name, 0.0) + value
            samples.setdefault(name, []).append((float(value), float(row[0] or 0.0)))
    for name, points in samples.items():
        for value, at in points:
            families.figure(name, value, at, labels)
    return families.all()


def _sensors(families: Families, sensors: Mapping[str, Any]) -> None:
    for name, reading in sensors.items():
        if not isinstance(reading, Mapping):
            continue
        known = _is_number(reading.get("value"))
        help = "1 where the sensor gives a value, 0 where it is absent."
        families.add("edgebit_sensor_up", "gauge", help, Sample(float(known), {"sensor": name}))
        series = _BY_UNIT.get(str(reading.get("unit")))
        if known and series is not None and name not in SENSOR_FIGURES:
            sample = Sample(float(reading["value"]) * series.scale, {"sensor": name})
            families.add(series.name, "gauge", _HELP[series.name], sample)


def _count(families: Families, name: str, help: str, label: str, metrics: Mapping[str, Any], key: str) -> None:
    for what, count in _mapping(metrics, key).items():
        if _is_number(count):
            families.add(name, "counter", help, Sample(float(count), {label: str(what)}))


def _mapping(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_GREATEST <= value <= _GREATEST
