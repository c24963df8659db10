"""Metric families as text: the format that Prometheus scrapes, and OpenMetrics, which may carry times.

Source: prometheus.io, "Exposition formats" (text format 0.0.4); OpenMetrics 1.0, "Text Format".
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["gauge", "counter", "summary"]
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; `suffix` is what follows the family's name: "", "_sum" or "_count"."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""
    at: float | None = None  # Unix seconds; in OpenMetrics only


@dataclass(slots=True)
class Family:
    """Samples of one name. A counter's name is without its _total."""

    name: str
    kind: Kind
    help: str
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name), self.name


def prometheus_text(families: Iterable[Family]) -> str:
    """In the text format 0.0.4, without times. Families without a sample are left out."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            name = family.name + ("_total" if family.kind == "counter" else "")
            lines += [f"# HELP {name} {_escaped(family.help)}", f"# TYPE {name} {family.kind}"]
            lines += [f"{name}{sample.suffix}{_labels(sample)} {_number(sample.value)}" for sample in family.samples]
    return "".join(f"{line}\n" for line in lines)


def openmetrics_text(families: Iterable[Family]) -> str:
    """In OpenMetrics 1.0, with times where samples have them: what `promtool tsdb create-blocks-from` reads."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines += [
                f"# TYPE {family.name} {family.kind}",
                f"# HELP {family.name} {_escaped(family.help, quotes=True)}",
            ]
            total = "_total" if family.kind == "counter" else ""
            for sample in family.samples:
                time = "" if sample.at is None else f" {_number(sample.at)}"
                lines.append(f"{family.name}{total}{sample.suffix}{_labels(sample)} {_number(sample.value)}{time}")
    return "".join(f"{line}\n" for line in [*lines, "# EOF"])


def _labels(sample: Sample) -> str:
    if not sample.labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in sample.labels.items()) + "}"


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
