"""One device with all that is known of it, as lines."""

from collections.abc import Iterable, Iterator

from rich.text import Text

from edgebit.monitor.columns import SEVERITIES, STYLES, span_s, spark_of
from edgebit.monitor.device import Device, Sample, SensorReading
from edgebit.monitor.figures import FIGURES

LABEL = 12  # columns
VALUE = 14
RANGE = 16
CURVES = ("temperature", "clock", "power", "tok_s", "queue")
OTHERS = ("headroom", "active", "answered", "errors", "p95", "joules", "memory", "fan", "battery", "uptime")
LABELS = {"tok_s": "speed", "p95": "95 % within", "joules": "energy", "headroom": "room"}


def detail_lines(device: Device, now: float, width: int) -> list[Text]:
    """The device, its figures over time, what is wrong, what has happened, and its sensors."""
    condition = device.condition(now)
    head = Text(device.name, style="bold").append("  ").append(condition, style=STYLES.get(condition, "not bold"))
    about = "  ".join(filter(None, (device.model, device.bundle, device.machine)))
    head.append(f"  {about}" if about else "", style="not bold dim")
    if device.availability == "online" and now - device.heard >= 1:
        head.append(f"  heard {span_words(now - device.heard)} ago", style="not bold dim")
    return [
        head,
        *_curves(device, now, width),
        *_figures(device, width),
        *_troubles(device),
        *_rest(device, now, width),
    ]


def span_words(seconds: float) -> str:
    """A time in its largest unit: "45 s", "12 min", "3 h", "2 d"."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _curves(device: Device, now: float, width: int) -> Iterator[Text]:
    room = max(width - LABEL - VALUE - RANGE, 0)
    for name in CURVES:
        figure, value = FIGURES[name], device.figures.get(name)
        known = [each for sample in device.samples if (each := _value(sample, name)) is not None]
        if value is None and not known:
            continue
        line = Text(f"{LABELS.get(name, name):<{LABEL}}", style="dim")
        line.append(f"{f'{figure.text(value)} {figure.unit}' if value is not None else '-':<{VALUE}}", style="not dim")
        if known and room:
            line.append_text(spark_of(device, name, room, now))
            line.append(f"  {figure.text(min(known))} - {figure.text(max(known))}", style="dim")
        yield line
    if device.samples and room:
        yield Text(f"{'':<{LABEL + VALUE}}the last {span_words(span_s(device, now, room))}", style="dim")


def _value(sample: Sample, name: str) -> float | None:
    found: float | None = getattr(sample, name)
    return found


def _figures(device: Device, width: int) -> Iterator[Text]:
    known = ((name, value) for name in OTHERS if (value := device.figures.get(name)) is not None)
    return _packed((_item(LABELS.get(name, name), _figure_words(name, value)) for name, value in known), width)


def _figure_words(name: str, value: float) -> str:
    figure = FIGURES[name]
    return span_words(value) if name == "uptime" else f"{figure.text(value)} {figure.unit}".rstrip()


def _item(label: str, words: str) -> Text:
    return Text(f"{label} ", style="dim").append(words, style="not dim")


def _packed(items: Iterable[Text], width: int) -> Iterator[Text]:
    """As many in a line as there is room for."""
    line = Text()
    for item in items:
        if line.cell_len and line.cell_len + 3 + item.cell_len > width:
            yield line
            line = Text()
        line.append("   " if line.cell_len else "").append_text(item)
    if line.cell_len:
        yield line


def _troubles(device: Device) -> Iterator[Text]:
    if device.figures.get("throttled"):
        yield Text("throttled: the firmware slows the cores", style="bold yellow")
    if device.figures.get("undervoltage"):
        yield Text("undervoltage: the power supply is too weak", style="bold yellow")
    if device.held_back:
        yield Text(f"held back: {device.held_back}", style="yellow")
    for alert in device.alerts:
        yield Text(
            f"{alert.severity or 'alert'}: {alert.name}: {alert.message}", style=SEVERITIES.get(alert.severity, "")
        )
    if device.last_error:
        yield Text(f"last error: {device.last_error}", style="red")


def _rest(device: Device, now: float, width: int) -> Iterator[Text]:
    if device.events:
        yield Text("events", style="bold")
    for event in device.events:
        line = Text(f"{span_words(now - event.at):>8} ago  ", style="dim").append(event.name, style="not dim")
        yield line.append(f"  {event.message}" if event.message else "", style="not dim")
    if device.sensors:
        yield Text("sensors", style="bold")
    there = (reading for reading in device.sensors if reading.value is not None)
    yield from _packed((_item(each.name, _reading_words(each)) for each in there), width)
    absent: dict[str, list[str]] = {}
    for reading in device.sensors:
        if reading.value is None:
            absent.setdefault(reading.absent, []).append(reading.name)
    for why, names in absent.items():
        yield Text(f"no {', '.join(names)}: {why}", style="dim")


def _reading_words(reading: SensorReading) -> str:
    return f"{reading.value:.6g}{f' {reading.unit}' if reading.unit not in ('', '1') else ''}"
