"""`edgebitd metrics` on the device: its history from the disk, with or without a daemon that runs."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.monitoring.export import FORMATS, Table
from edgebit.daemon.monitoring.history import read_records
from edgebit.daemon.monitoring.history_request import HistoryRequest, table
from edgebit.daemon.monitoring.quantities import QUANTITIES, UNITS
from edgebit.daemon.monitoring.summary import HEAD, cells, shown, summary_of
from edgebit.daemon.monitoring.timeline import present
from edgebit.errors import ConfigError, NoAnswerError

_OF = {quantity.name: "in the last interval" for quantity in QUANTITIES if quantity.kind == "count"}


def read_folder(folder: Path, fields: dict[str, object], *, here: bool, device: str = "") -> Table:
    """Rows of a history's folder as the op `history` would give them, the last `since_s` before now.

    `here`: the folder is this device's own, whose clock says what now is; else now is the last row's time.
    Raises ConfigError where a field is wrong or the folder cannot be read, NoAnswerError where there is nothing.
    """
    try:
        request = HistoryRequest.read(fields)
        columns, rows = table(lambda: read_records(folder), request, present() if here else None)
        found = Table(columns=columns, rows=list(rows), step_s=request.step_s, device=device)
    except Refusal as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{folder}: the history cannot be read: {error.strerror}") from error
    if not found.rows:
        raise NoAnswerError(f"{folder} holds nothing of that time. Give a longer --since; it is ROOT/state/history")
    return found


def show(folder: Path, *, as_json: bool) -> None:
    """Print the last figures that were recorded: levels at that moment, counts of the interval before it."""
    found = read_folder(folder, {"since_s": 86400, "step_s": 0}, here=True)
    last = Table(columns=found.columns, rows=found.rows[-1:], step_s=0)
    if as_json:
        sys.stdout.write(FORMATS["json"](last))
        return
    figures = zip(last.columns[2:], last.rows[0][2:], strict=True)
    _print(
        ("figure", "last", "unit", ""),
        [[name, shown(value), UNITS[name], _OF.get(name, "")] for name, value in figures if value is not None],
    )


def summary(folder: Path, since_s: float, *, as_json: bool) -> None:
    """Print what the last `since_s` came to."""
    found = summary_of(read_folder(folder, {"since_s": since_s, "step_s": 0}, here=True))
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
        return
    _print(HEAD, cells(found.lines))


def export(folder: Path, since_s: float, step_s: float, form: str) -> None:
    """Print rows in one of FORMATS."""
    sys.stdout.write(FORMATS[form](read_folder(folder, {"since_s": since_s, "step_s": step_s}, here=True)))


def _print(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
