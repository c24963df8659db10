"""The columns of the overview: what each shows, and which stay where the terminal is narrow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from edgebit.monitor.device import Device
from edgebit.monitor.figures import FIGURES
from edgebit.monitor.sparkline import sparkline

GAP = 2  # between columns
NAME_MAX = 24
SPARK_LEAST, SPARK_MOST = 12, 40
SPAN_S = 3600.0  # of a sparkline, at most

STYLES = {
    "ready": "green",
    "busy": "cyan",
    "hot": "bold yellow",
    "stale": "yellow",
    "draining": "yellow",
    "fault": "bold red",
    "lost": "bold red",
    "offline": "dim",
}
SEVERITIES = {"critical": "bold red", "warning": "yellow"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column; the less its rank, the longer it stays."""

    title: str
    rank: int
    cell: Callable[[Device, float], Text]
    right: bool = True


def _figure(name: str) -> Callable[[Device, float], Text]:
    def cell(device: Device, now: float) -> Text:
        if device.availability != "online":
            return Text("")
        style = "dim" if device.is_stale(now) else ""
        return Text(FIGURES[name].text(device.figures.get(name)), style=style)

    return cell


def _name(device: Device, now: float) -> Text:
    name = device.name if len(device.name) <= NAME_MAX else device.name[: NAME_MAX - 1] + "…"
    return Text(name, style="bold")


def _state(device: Device, now: float) -> Text:
    condition = device.condition(now)
    return Text(condition, style=STYLES.get(condition, ""))


def _held_back(device: Device, now: float) -> Text:
    if device.availability != "online":
        return Text("")
    shorts = (("throttled", "throttle"), ("undervoltage", "volts"))
    flags = [short for name, short in shorts if device.figures.get(name)]
    return Text(" ".join(flags) or ("governor" if device.held_back else ""), style="bold yellow")


def _errors(device: Device, now: float) -> Text:
    cell = _figure("errors")(device, now)
    if device.figures.get("errors"):
        cell.stylize("red")
    return cell


def _alerts(device: Device, now: float) -> Text:
    if device.availability != "online" or not device.alerts:
        return Text("")
    worst = device.alerts[0]
    more = f" +{len(device.alerts) - 1}" if len(device.alerts) > 1 else ""
    return Text(f"{worst.name[:12]}{more}", style=SEVERITIES.get(worst.severity, ""))


COLUMNS = (
    Column("device", 0, _name, right=False),
    Column("state", 1, _state, right=False),
    Column("°C", 2, _figure("temperature")),
    Column("room", 8, _figure("headroom")),
    Column("MHz", 9, _figure("clock")),
    Column("held back", 4, _held_back, right=False),
    Column("W", 6, _figure("power")),
    Column("tok/s", 3, _figure("tok_s")),
    Column("queue", 5, _figure("queue")),
    Column("active", 11, _figure("active")),
    Column("p95 ms", 12, _figure("p95")),
    Column("errors", 10, _errors),
    Column("alerts", 7, _alerts, right=False),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit, the width of each, and what is left for a sparkline; 0: none is shown."""

    columns: Sequence[Column]
    widths: Sequence[int]
    spark: int


def fitted(rows: Sequence[Sequence[Text]], width: int, *, spark: bool) -> Layout:
    """As many columns as `width` has room for, by rank; a column that is empty in every row is left out.

    rows: the cells of all COLUMNS, a row for each device; spark: whether a sparkline is wanted in what is left.
    """
    widths = [
        max([cell_len(column.title), *(row[place].cell_len for row in rows)]) for place, column in enumerate(COLUMNS)
    ]
    filled = [
        place for place, column in enumerate(COLUMNS) if column.rank <= 3 or any(row[place].plain for row in rows)
    ]
    chosen: list[int] = []
    left = width + GAP
    for place in sorted(filled, key=lambda place: COLUMNS[place].rank):
        need = widths[place] + GAP
        if need > left:
            break
        chosen.append(place)
        left -= need
    chosen = sorted(chosen) or [0]
    room = min(left - GAP, SPARK_MOST)
    return Layout(
        [COLUMNS[place] for place in chosen],
        [min(widths[place], width) for place in chosen],
        room if spark and room >= SPARK_LEAST else 0,
    )


def spark_of(device: Device, name: str, width: int, now: float) -> Text:
    """A figure's sparkline: all that is known of it, up to an hour."""
    points = [(sample.at, getattr(sample, name)) for sample in device.samples]
    change = FIGURES[name].change
    return Text(sparkline(points, width, now, span_s(device, now, width), change), style="blue")


def span_s(device: Device, now: float, width: int) -> float:
    """The time that a device's sparkline shows."""
    known_s = now - device.samples[0].at if device.samples else 0.0
    return min(max(known_s, float(width)), SPAN_S)
