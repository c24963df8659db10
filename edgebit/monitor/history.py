"""A device's own history (the op `history` of docs/mqtt.md): asked for, checked, as samples and as a picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgebit.errors import DeviceError, NoAnswerError
from edgebit.line_plot import Panel, Picture, Point, Series
from edgebit.monitor.device import Sample
from edgebit.monitor.published import figure, words
from edgebit.mqtt_client.client import DeviceClient

ROWS_MAX = 20_000
PAGES_MAX = 200
ROWS_WANTED = 600  # of a picture: about as many as it has pixels
STEP_LEAST_S = 10
ANSWER_S = 30.0  # for a page
FIELDS = ("t_soc", "clock_mhz", "power_w", "tok_s", "throttled")
_PANELS = (
    ("t_soc", "temperature, °C"),
    ("clock_mhz", "clock, MHz"),
    ("power_w", "power, W"),
    ("tok_s", "decode, tok/s"),
)
_SAMPLE = {
    "temperature": "t_soc",
    "clock": "clock_mhz",
    "power": "power_w",
    "tok_s": "tok_s",
    "queue": "queued",
    "throttled": "throttled",
}

Row = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class History:
    """Rows by name, oldest first; `t` is in each: when it begins, by the device's clock in Unix seconds."""

    device: str
    now: float  # by that clock, when it was asked
    step_s: float  # length of a row
    rows: Sequence[Row]
    following: float | None = None  # where the next page begins; None: these are all


def read_history(device: str, reply: Mapping[str, Any]) -> History:
    """The answer to one request. Raises DeviceError where it is no history."""
    columns, rows = reply.get("columns"), reply.get("rows")
    now, step_s = figure(reply.get("now")), figure(reply.get("step_s"))
    if not isinstance(columns, list) or not isinstance(rows, list) or now is None or step_s is None or step_s < 0:
        raise DeviceError(f"what {device} answered is no history. Is it a daemon of another version?")
    names = [words(name) for name in columns[:256]]
    read = [dict(zip(names, map(figure, row), strict=False)) for row in rows[:ROWS_MAX] if isinstance(row, list)]
    timed = sorted((row for row in read if row.get("t") is not None), key=lambda row: row["t"] or 0.0)
    return History(device, now, step_s, timed, figure(reply.get("next")))


def ask_rows(client: DeviceClient, device: str, fields: Mapping[str, Any]) -> History:
    """All pages of what `fields` ask for. Raises DeviceError, NoAnswerError.

    `following` stays where a device has more than ROWS_MAX rows, or always one page more.
    """
    asked = dict(fields)
    rows: list[Row] = []
    for _ in range(PAGES_MAX):
        page = read_history(device, client.ask(device, "history", asked, timeout_s=ANSWER_S))
        rows += page.rows
        if page.following is None or not page.rows or len(rows) > ROWS_MAX:
            break
        asked["after"] = page.following
    if not rows:
        raise NoAnswerError(f"{device} remembers nothing of that time. Give a longer --since, or wait for it to record")
    return replace(page, rows=rows)


def ask_history(client: DeviceClient, device: str, since_s: float) -> History:
    """All of the last `since_s` seconds, in as many rows as a picture can show. Raises DeviceError, NoAnswerError."""
    step_s = max(STEP_LEAST_S, round(since_s / ROWS_WANTED))
    return ask_rows(client, device, {"since_s": since_s, "step_s": step_s, "fields": list(FIELDS)})


def samples_of(history: History, at: float) -> Iterator[Sample]:
    """The rows as samples of this machine's clock, which says `at` now. A row stands for its middle."""
    for row in history.rows:
        age_s = history.now - (row["t"] or 0.0) - history.step_s / 2
        if age_s > 0:
            yield Sample(at - age_s, **{name: row.get(column) for name, column in _SAMPLE.items()})


def picture(history: History) -> Picture:
    """Temperature, clock, power and speed over time, those that the device knows; throttled times are shaded."""
    begin = history.rows[0]["t"] or 0.0
    spans = list(_throttled(history, begin))
    drawn = [(title, list(_points(history, name, begin))) for name, title in _PANELS]
    known = [(title, points) for title, points in drawn if any(value is not None for _, value in points)]
    panels = [Panel(title, [Series(history.device, points)], spans=spans) for title, points in known]
    shaded = "; shaded: throttled" if spans else ""
    age_s = history.now - begin
    return Picture(
        f"{history.device}: the last {age_s / 3600:.1f} h"
        if age_s >= 7200
        else f"{history.device}: {age_s / 60:.0f} min",
        f"means of {history.step_s:g} s{shaded}" if panels else "no figure is known of that time",
        panels,
    )


def _points(history: History, name: str, begin: float) -> Iterator[Point]:
    """The middle of each row; a time without rows, as when the device was off, breaks the line."""
    before: float | None = None
    for row in history.rows:
        at = (row["t"] or 0.0) - begin
        if before is not None and at - before > 1.5 * history.step_s:
            yield before + history.step_s, None
        yield at + history.step_s / 2, row.get(name)
        before = at


def _throttled(history: History, begin: float) -> Iterator[tuple[float, float]]:
    """Seconds from and to; rows one after the other make one span."""
    span: tuple[float, float] | None = None
    for row in history.rows:
        if not (row.get("throttled_max") or row.get("throttled")):
            continue
        at = (row["t"] or 0.0) - begin
        if span is not None and at <= span[1] + 0.5 * history.step_s:
            span = (span[0], at + history.step_s)
            continue
        if span is not None:
            yield span
        span = (at, at + history.step_s)
    if span is not None:
        yield span
