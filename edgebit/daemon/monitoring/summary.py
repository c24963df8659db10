"""What a time came to: for each figure its mean, least, greatest and 95th percentile, or how many in all."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.monitoring.export import Table
from edgebit.daemon.monitoring.outcomes import percentile
from edgebit.daemon.monitoring.quantities import QUANTITIES, UNITS, rounded

_COUNTS = {quantity.name for quantity in QUANTITIES if quantity.kind == "count"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure over all rows in which it was known. A count has its sum only, a gauge all but the sum."""

    figure: str
    unit: str
    known: int  # rows
    total: float | None = None
    mean: float | None = None
    least: float | None = None
    p95: float | None = None
    greatest: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Rows from `begin` to `end`, in Unix seconds, and a line for each figure that was known at all."""

    rows: int
    begin: float | None
    end: float | None
    lines: tuple[Line, ...]

    def to_json(self) -> dict[str, Any]:
        """For scripts: figures by name."""
        figures = {line.figure: _known(line) for line in self.lines}
        return {"rows": self.rows, "begin": self.begin, "end": self.end, "figures": figures}


def summary_of(table: Table) -> Summary:
    """Of rows as they were recorded: a percentile of means would be none."""
    assert table.step_s == 0
    times = [row[0] for row in table.rows if row[0] is not None]
    lines = (
        _line(name, values)
        for position, name in enumerate(table.columns[2:], 2)
        if (values := [row[position] for row in table.rows if row[position] is not None])
    )
    return Summary(
        rows=len(table.rows), begin=min(times, default=None), end=max(times, default=None), lines=tuple(lines)
    )


def _line(name: str, values: list[Any]) -> Line:
    unit = UNITS.get(name, "1")
    if name in _COUNTS:
        return Line(figure=name, unit=unit, known=len(values), total=math.fsum(values))
    ordered = sorted(values)
    return Line(
        figure=name,
        unit=unit,
        known=len(values),
        mean=math.fsum(values) / len(values),
        least=ordered[0],
        p95=percentile(ordered, 95),
        greatest=ordered[-1],
    )


def _known(line: Line) -> Mapping[str, Any]:
    fields = ("total",) if line.total is not None else ("mean", "least", "p95", "greatest")
    return {"unit": line.unit, "known": line.known, **{name: rounded(getattr(line, name)) for name in fields}}


HEAD = ("figure", "unit", "mean", "least", "p95", "greatest", "in all")


def cells(lines: Iterable[Line]) -> list[list[str]]:
    """For people: a row of words for each line, under HEAD."""
    return [
        [
            line.figure,
            line.unit,
            *(shown(value) for value in (line.mean, line.least, line.p95, line.greatest, line.total)),
        ]
        for line in lines
    ]


def shown(value: float | None) -> str:
    """A figure for people; empty where it is not known."""
    return "" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
