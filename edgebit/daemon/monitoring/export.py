"""Rows of a history as text for other programs: CSV, JSON, and OpenMetrics, which Prometheus takes with its times."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.monitoring.downsample import Row
from edgebit.daemon.monitoring.exposition import openmetrics_text
from edgebit.daemon.monitoring.prometheus import families_of_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of figures, oldest first; None is a figure that is not known."""

    columns: Sequence[str]  # `t`, Unix seconds, and `n` first
    rows: Sequence[Row]
    step_s: float  # length of a row; 0: as they were recorded
    device: str = ""  # whose they are, where that is known


def csv_text(table: Table) -> str:
    """A line with the columns' names, then one a row; what is not known is empty (RFC 4180, but lines end in LF)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_plain(value) for value in row] for row in table.rows)
    return text.getvalue()


def json_text(table: Table) -> str:
    """One object, whose rows are lists in the order of `columns`."""
    body: dict[str, Any] = {"device": table.device or None, "step_s": _plain(table.step_s), "columns": table.columns}
    rows = ",\n".join(json.dumps([_plain(value) for value in row], separators=(",", ":")) for row in table.rows)
    return json.dumps(body, ensure_ascii=False)[:-1] + f', "rows": [\n{rows}\n]}}\n'


def openmetrics(table: Table) -> str:
    """OpenMetrics 1.0 with times: for `promtool tsdb create-blocks-from openmetrics`."""
    labels = {"device": table.device} if table.device else {}
    return openmetrics_text(families_of_rows(table.columns, table.rows, labels))


FORMATS: Mapping[str, Callable[[Table], str]] = {"csv": csv_text, "json": json_text, "prometheus": openmetrics}


def _plain(value: float | int | None) -> float | int | None:
    """Without the point where nothing is behind it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
