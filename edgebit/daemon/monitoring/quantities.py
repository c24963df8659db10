"""The figures of a snapshot: each has a name with its unit, and is either a gauge or a count.

A gauge is a level: over a time it has a mean, a least and a greatest value. A count says how often or how much since
the figure before: over a time it has a sum. docs/monitoring.md shows this table.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "count"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One figure of a snapshot."""

    name: str
    unit: str
    kind: Kind
    meaning: str


QUANTITIES = (
    Quantity("active", "1", "gauge", "answers being computed"),
    Quantity("queued", "1", "gauge", "requests waiting"),
    Quantity("answered", "1", "count", "requests answered"),
    Quantity("failed", "1", "count", "requests that failed by the device's fault (500, 507)"),
    Quantity("refused", "1", "count", "requests refused, expired or filtered"),
    Quantity("cancelled", "1", "count", "requests ended by their callers"),
    Quantity("error_rate", "ratio", "gauge", "failed of those answered or failed, over the window"),
    Quantity("prompt_tokens", "1", "count", "tokens of prompts"),
    Quantity("reused_tokens", "1", "count", "of these, computed before"),
    Quantity("answer_tokens", "1", "count", "tokens of answers"),
    Quantity("cache_hits", "1", "count", "answers from the answer cache"),
    Quantity("cache_misses", "1", "count", "answers that the answer cache could have had"),
    Quantity("tok_s", "tok/s", "gauge", "decode speed of an answer"),
    Quantity("prompt_tok_s", "tok/s", "gauge", "prefill speed, reused tokens aside, over the window"),
    Quantity("latency_p50_ms", "ms", "gauge", "from admission to the last frame, median over the window"),
    Quantity("latency_p95_ms", "ms", "gauge", "the same, 95th percentile"),
    Quantity("latency_p99_ms", "ms", "gauge", "the same, 99th percentile"),
    Quantity("first_token_p50_ms", "ms", "gauge", "from admission to the first token, median over the window"),
    Quantity("first_token_p95_ms", "ms", "gauge", "the same, 95th percentile"),
    Quantity("rss_mib", "MiB", "gauge", "memory of the process, mapped files such as the weights aside"),
    Quantity("rss_mapped_mib", "MiB", "gauge", "resident pages of mapped files"),
    Quantity("cpu_percent", "%", "gauge", "CPU of the process, 100 for one core"),
    Quantity("cpu_busy_percent", "%", "gauge", "CPU of the whole device, 100 for all cores"),
    Quantity("memory_percent", "%", "gauge", "memory of the device that is not available"),
    Quantity("disk_free_mib", "MiB", "gauge", "free on the disk of the state folder"),
    Quantity("load_1m", "1", "gauge", "load average of the device"),
    Quantity("psi_cpu", "%", "gauge", "time in which something waited for the CPU, over 10 s"),
    Quantity("psi_memory", "%", "gauge", "the same for memory"),
    Quantity("psi_io", "%", "gauge", "the same for the disk"),
    Quantity("t_soc", "C", "gauge", "temperature of the processor"),
    Quantity("clock_mhz", "MHz", "gauge", "clock of the fastest core"),
    Quantity("throttled", "1", "gauge", "1 while firmware holds the clock back"),
    Quantity("undervoltage", "1", "gauge", "1 while the supply is too weak"),
    Quantity("fan_percent", "%", "gauge", "the fan"),
    Quantity("power_w", "W", "gauge", "power of the device"),
    Quantity("energy_j", "J", "count", "energy of the device"),
    Quantity("joules_per_token", "J", "gauge", "energy of an answer's token, over the window"),
    Quantity("battery_percent", "%", "gauge", "charge of the battery"),
    Quantity("sensors_lost", "1", "gauge", "sensors that gave a value before and now give none"),
)

NAMES = tuple(quantity.name for quantity in QUANTITIES)
UNITS = {quantity.name: quantity.unit for quantity in QUANTITIES}


def rounded(value: float | None) -> float | int | None:
    """To a thousandth, and without the point where nothing is behind it: shorter in JSON."""
    if value is None:
        return None
    found = round(value, 3)
    return int(found) if found == int(found) else found
