"""The operation `history`: which rows are asked for, and the answer in pages that a broker takes."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.monitoring.downsample import Row, columns_of, rows
from edgebit.daemon.monitoring.history import Record
from edgebit.daemon.monitoring.quantities import NAMES
from edgebit.daemon.monitoring.timeline import Moment, starts

SINCE_S = 3600.0
STEP_S = 60.0
AGE_MAX_S = 366 * 86400.0
PAGE_BYTES = 65536  # of the rows of one answer
PAGE_MARGIN = 2048  # for what stands around the rows, column names aside

Records = Callable[[], Iterable[Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRequest:
    """Which rows: ages in seconds before now."""

    since_s: float = SINCE_S
    until_s: float = 0.0
    step_s: float = STEP_S
    fields: tuple[str, ...] = NAMES
    after: float | None = None  # rows that begin later, as the answer before said

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "HistoryRequest":
        """From the fields of a request. Raises Refusal where one is wrong."""
        since_s = _number(fields, "since_s", SINCE_S, AGE_MAX_S)
        until_s = _number(fields, "until_s", 0.0, AGE_MAX_S)
        if since_s <= until_s:
            raise Refusal(400, "bad_field", "since_s must be above until_s: both are seconds before now")
        after = None if fields.get("after") is None else _number(fields, "after", 0.0, 1e11)
        step_s = _number(fields, "step_s", STEP_S, AGE_MAX_S)
        if 0 < step_s < 1:
            raise Refusal(400, "bad_field", "step_s must be 0, for rows as they were recorded, or at least 1")
        return cls(since_s=since_s, until_s=until_s, step_s=step_s, fields=_names(fields), after=after)


def table(records: Records, request: HistoryRequest, now: Moment | None) -> tuple[list[str], Iterator[Row]]:
    """Columns and rows, oldest first; `records` is called twice, and must give the same ones from the oldest on.

    Without `now` ages count from the last record.
    """
    begun = starts((record.at for record in records()), now)
    present_s = now.wall if now is not None else _last(records, begun)
    first, last = present_s - request.since_s, present_s - request.until_s
    if request.step_s > 0:  # whole rows only, so that the same row has the same figures whenever it is asked for
        first = first // request.step_s * request.step_s

    def timed() -> Iterator[tuple[float, Record]]:
        newest = first
        for record in records():
            t = begun.get(record.at.boot, 0.0) + record.at.monotonic
            if first <= t <= last:
                newest = max(newest, t)  # in the order of recording, whatever a damaged record may say
                yield newest, record

    found = rows(timed(), request.fields, request.step_s)
    after = request.after
    wanted = found if after is None else (row for row in found if row[0] is not None and row[0] > after)
    return columns_of(request.fields, request.step_s), wanted


def answer(
    records: Records, request: HistoryRequest, now: Moment, *, interval_s: float, packet_max: int
) -> dict[str, Any]:
    """The reply's body: as many rows as a packet has room for, one at least. packet_max 0: any size."""
    columns, wanted = table(records, request, now)
    room = min(PAGE_BYTES, packet_max or PAGE_BYTES) - PAGE_MARGIN - len(json.dumps(columns))
    page: list[Row] = []
    following: float | int | None = None
    for row in wanted:
        room -= len(json.dumps(row, separators=(",", ":"))) + 1
        if room < 0 and page:
            following = page[-1][0]
            break
        page.append(row)
    return {
        "op": "history",
        "now": round(now.wall, 3),
        "interval_s": interval_s,
        "step_s": request.step_s,
        "columns": columns,
        "rows": page,
        "next": following,
    }


def _last(records: Records, begun: Mapping[bytes, float]) -> float:
    return max((begun[record.at.boot] + record.at.monotonic for record in records()), default=0.0)


def _number(fields: Mapping[str, Any], name: str, default: float, most: float) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise Refusal(400, "bad_field", f"{name} must be a number from 0 to {most:.0f}")
    return float(value)


def _names(fields: Mapping[str, Any]) -> tuple[str, ...]:
    wanted = fields.get("fields")
    if wanted is None:
        return NAMES
    if not isinstance(wanted, list) or not wanted:
        raise Refusal(400, "bad_field", "fields is a list of names of figures")
    for name in wanted:
        if name not in NAMES:
            raise Refusal(400, "bad_field", f"there is no figure {str(name)[:64]!r}; there are {', '.join(NAMES)}")
    return tuple(dict.fromkeys(wanted))
