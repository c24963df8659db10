"""What the terminal shows: a frame of lines, from the devices, what is chosen, and the room there is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from edgebit.monitor.columns import COLUMNS, GAP, Layout, fitted, spark_of
from edgebit.monitor.detail import detail_lines
from edgebit.monitor.device import Device
from edgebit.monitor.fleet import DEVICES_MAX, ordered
from edgebit.monitor.keys import Choice, place_of

OTHER_LINES = 3  # title, header, keys
KEYS = "s sort  r reverse  ↑↓ select  enter detail  q quit"
DETAIL_KEYS = "esc back  ↑↓ next device  q quit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a frame is made of."""

    devices: Sequence[Device]
    broker: str
    now: float
    trouble: str = ""
    left_out: bool = False


def frame(scene: Scene, choice: Choice, width: int, height: int) -> RenderableType:
    """The lines of a whole screen, none longer than `width`, at most `height` of them."""
    title = _title(scene, choice)
    if choice.detail and scene.devices:
        (device,), _, _ = shown_of(scene, choice, height)
        lines = detail_lines(device, scene.now, width)[: max(height - 2, 1)]
        return Group(*_cut([title, *lines, Text(DETAIL_KEYS, style="dim")], width, height))
    shown, first, selected = shown_of(scene, choice, height)
    lines = [title, *overview(shown, scene.now, width, selected=selected)]
    keys = KEYS
    if len(shown) < len(scene.devices):
        keys = f"{first + 1}-{first + len(shown)} of {len(scene.devices)}  {KEYS}"
    if scene.left_out:
        keys = f"more than {DEVICES_MAX} devices: choose with --device  {keys}"
    return Group(*_cut([*lines, Text(keys, style="dim")], width, height))


def shown_of(scene: Scene, choice: Choice, height: int) -> tuple[Sequence[Device], int, int]:
    """The devices in view, the place of the first among all, and that of the selected one among those in view."""
    devices = ordered(scene.devices, choice.sort, reverse=choice.reverse)
    selected = place_of(choice, [device.name for device in devices])
    if choice.detail:
        return devices[selected : selected + 1], selected, 0
    room = rows_that_fit(height)
    first = max(0, min(selected - room // 2, len(devices) - room))
    return devices[first : first + room], first, selected - first


def rows_that_fit(height: int) -> int:
    """Devices that a screen has room for."""
    return max(height - OTHER_LINES, 1)


def overview(devices: Sequence[Device], now: float, width: int, *, selected: int | None = None) -> list[Text]:
    """A header and a line for each device; the columns that fit."""
    rows = [[column.cell(device, now) for column in COLUMNS] for device in devices]
    layout = fitted(rows, width, spark=any(len(device.samples) > 1 for device in devices))
    lines = [_header(layout)]
    for number, (device, row) in enumerate(zip(devices, rows, strict=True)):
        line = _row(device, [row[COLUMNS.index(column)] for column in layout.columns], layout, now)
        if number == selected:
            line.pad_right(max(width - line.cell_len, 0))
            line.stylize("reverse")
        lines.append(line)
    if not devices:
        lines.append(Text("no device yet", style="dim"))
    return lines


def _title(scene: Scene, choice: Choice) -> Text:
    online = sum(device.availability == "online" and not device.is_stale(scene.now) for device in scene.devices)
    alerts = sum(len(device.alerts) for device in scene.devices if device.availability == "online")
    order = f"by {choice.sort}{', reversed' if choice.reverse else ''}"
    words = [
        f"{online} of {len(scene.devices)} online",
        f"{alerts} alert{'s' if alerts > 1 else ''}" if alerts else "",
        order,
        scene.broker,
    ]
    title = Text("edgebit monitor  ", style="bold")
    if scene.trouble:
        return title.append(scene.trouble, style="bold red")
    return title.append("  ".join(filter(None, words)), style="not bold")


def _header(layout: Layout) -> Text:
    titles = [Text(column.title, style="bold") for column in layout.columns]
    line = _joined(titles, layout)
    if layout.spark:
        line.append(" " * GAP + "temperature", style="bold")
    return line


def _row(device: Device, cells: Sequence[Text], layout: Layout, now: float) -> Text:
    line = _joined(cells, layout)
    if layout.spark and device.availability == "online":
        line.append(" " * GAP).append_text(spark_of(device, "temperature", layout.spark, now))
    return line


def _joined(cells: Sequence[Text], layout: Layout) -> Text:
    line = Text()
    for number, (cell, column, width) in enumerate(zip(cells, layout.columns, layout.widths, strict=True)):
        padded = cell.copy()
        padded.truncate(width, overflow="ellipsis")
        space = " " * (width - padded.cell_len)
        line.append(" " * GAP if number else "")
        line.append(space if column.right else "").append_text(padded).append("" if column.right else space)
    return line


def _cut(lines: Sequence[Text], width: int, height: int) -> list[Text]:
    """Never a line that would wrap, nor more of them than there is room for; the last one stays."""
    kept = [*lines[: height - 1], lines[-1]] if len(lines) > height else list(lines)
    for line in kept:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return kept
