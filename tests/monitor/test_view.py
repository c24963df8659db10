"""Frames of the live view, recorded from devices that messages have made."""

import io
import json

import pytest
from rich.console import Console

from edgebit.monitor.device import Device, Sample, told
from edgebit.monitor.keys import Choice, KeyReader, pressed
from edgebit.monitor.sparkline import sparkline
from edgebit.monitor.view import Scene, frame, shown_of

STATUS = {"state": "busy", "t_soc": 71.5, "queue_len": 2, "tok_s_now": 6.25, "power_w": 7.9, "headroom_c": 6.5}
METRICS = {"clock_mhz": 2400, "active": 1, "failed": 3, "latency_p95_ms": 8123, "sensors": {"fan": {"value": 40}}}


def device_of(name, status=STATUS, metrics=METRICS, now=100.0):
    device = Device(name=name, heard=now)
    device = told(device, "availability", b'{"state":"online","conn":1}', now)
    device = told(device, "status", json.dumps(status).encode(), now)
    return told(device, "metrics", json.dumps(metrics).encode(), now)


def scene(*devices, now=101.0, **named):
    return Scene(devices=devices, broker="mqtt://broker.local:1883", now=now, **named)


def lines(of, choice=None, width=120, height=20):
    """The frame as a terminal would have it, without the spaces at the ends."""
    recorder = Console(width=width, height=height, record=True, file=io.StringIO())
    recorder.print(frame(of, choice or Choice(), width, height))
    return [line.rstrip() for line in recorder.export_text().removesuffix("\n").split("\n")]


def test_the_overview():
    """A title, a header, a line for each device with its figures, and the keys."""
    title, header, first, second, keys, *rest = lines(scene(device_of("pi5"), Device(name="pi4", availability="lost")))
    assert title == "edgebit monitor  1 of 2 online  by name  mqtt://broker.local:1883"
    assert " ".join(header.split()) == "device state °C room MHz W tok/s queue active p95 ms errors"
    assert first == "pi4     lost"
    assert " ".join(second.split()) == "pi5 busy 71.5 6.5 2400 7.9 6.2 2 1 8123 3"
    assert keys.startswith("s sort") and not any(rest)


def test_what_is_wrong_stands_out():
    """Throttling, weak supply, the gravest alert and how many there are, a connection that is lost."""
    alerts = [{"name": "heat", "severity": "critical"}, {"name": "latency", "severity": "warning"}]
    hot = {**STATUS, "state": "hot", "throttled": True, "alerts": alerts}
    shown = lines(scene(device_of("pi5", hot, {**METRICS, "undervoltage": 1}), trouble="the connection was lost"))
    assert shown[0] == "edgebit monitor  the connection was lost"
    assert "throttle volts" in shown[2] and "heat +1" in shown[2]
    held = lines(scene(device_of("pi5", {**STATUS, "held_back": "too hot"})))
    assert "governor" in held[2]


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (80, "device state °C room MHz W tok/s queue active p95 ms errors"),
        (72, "device state °C room MHz W tok/s queue active errors"),
        (56, "device state °C room MHz W tok/s queue"),
        (42, "device state °C W tok/s queue"),
        (30, "device state °C tok/s"),
        (18, "device state"),
        (12, "device"),
        (1, "…"),
    ],
)
def test_a_narrow_terminal_keeps_what_matters_most(width, header):
    """Columns go by importance, and no line is longer than the terminal is wide."""
    shown = lines(scene(device_of("pi5")), width=width)
    assert all(len(line) <= width for line in shown)
    assert shown[1].split() == header.split()


def test_the_history_takes_the_room_that_is_left():
    """A sparkline of the temperature, once there is more than one moment to show."""
    device = device_of("pi5", {**STATUS, "t_soc": 50})
    for at in range(101, 161):
        device = told(device, "status", json.dumps({**STATUS, "t_soc": 20 + at / 3}).encode(), float(at))
    shown = lines(scene(device, now=161.0), width=120)
    bars = [character for character in shown[2] if "▁" <= character <= "█"]
    assert shown[1].endswith("temperature") and len(bars) > 12
    assert bars == sorted(bars) and bars[0] == "▁" and bars[-1] == "█"


def test_many_devices_scroll_with_the_selection():
    """The selected one is in view, and the last line says which ones are."""
    fleet = scene(*(device_of(f"node-{number:03d}") for number in range(200)))
    shown = lines(fleet, Choice(selected="node-150"), height=13)
    assert len(shown) == 13 and any(line.startswith("node-150") for line in shown)
    assert shown[-1].startswith("146-155 of 200")
    assert lines(fleet, Choice(selected="gone"), height=13)[2].startswith("node-000")
    assert lines(fleet, Choice(selected="node-199"), height=13)[-2].startswith("node-199")
    assert len(lines(fleet, height=4)) == 4


def test_the_selection_follows_the_device():
    """A new order moves the line, not the choice."""
    first, second = device_of("a"), device_of("b", {**STATUS, "t_soc": 80})
    shown, _, selected = shown_of(scene(first, second), Choice(sort="temp", selected="a"), 20)
    assert [device.name for device in shown] == ["b", "a"] and selected == 1


def test_one_device_in_detail():
    """Its figures over time, what holds it back, alerts, events and sensors."""
    alerts = [{"name": "heat", "severity": "critical", "message": "81 °C, above 80"}]
    device = device_of("pi5", {**STATUS, "held_back": "hot", "alerts": alerts, "last_error": "engine: broke"})
    sensors = {"fan": {"value": 40}, "power": {"absent": "no meter"}, "energy_total": {"absent": "no meter"}}
    device = told(device, "metrics", json.dumps({**METRICS, "sensors": sensors}).encode(), 100.0)
    device = told(device, "event", b'{"event":"throttled","message":"the firmware slows the cores"}', 100.0)
    shown = lines(scene(device, now=220.0), Choice(detail=True), height=40)
    text = "\n".join(shown)
    for words in ("71.5 °C", "6.2 tok/s", "held back: hot", "critical: heat: 81 °C, above 80", "engine: broke"):
        assert words in text
    assert "2 min ago  throttled  the firmware slows the cores" in text and "fan 40" in text
    assert "no power, energy_total: no meter" in text
    assert len(lines(scene(device), Choice(detail=True), height=5)) == 5


def test_no_device_yet():
    """The view waits for one."""
    assert lines(scene())[2] == "no device yet" and lines(scene(), Choice(detail=True))[2] == "no device yet"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"s"], ["sort"]),
        ([b"\x1b[A\x1b[B"], ["up", "down"]),
        ([b"\x1b", b"[A"], ["up"]),
        ([b"\x1b[", b"6~"], ["page_down"]),
        ([b"\x1b", b""], ["back"]),
        ([b"\x1b[200~q\x1b[201~"], ["quit"]),
        ([b"\x1b[1;5Cxyz\xff\x00"], []),
        ([b"\x1b[" + b"1" * 100 + b"q"], []),
        ([b"jk\r"], ["down", "up", "open"]),
    ],
)
def test_keys(pieces, expected):
    """Sequences may come in parts; Escape alone is a key once nothing follows; what is not known is nothing."""
    reader = KeyReader()
    assert [key for piece in pieces for key in reader.read(piece)] == expected


def test_what_keys_do():
    """A table of moves, from the first of five devices."""
    names = list("abcde")
    choice = Choice()
    for key, selected in [("down", "b"), ("down", "c"), ("page_down", "e"), ("up", "d"), ("home", "a"), ("end", "e")]:
        choice = pressed(choice, key, names, page=3)
        assert choice.selected == selected
    choice = pressed(choice, "open", names, page=3)
    assert choice.detail and not pressed(choice, "back", names, page=3).detail
    assert pressed(choice, "sort", names, page=3).sort == "temp" and pressed(choice, "reverse", names, page=3).reverse
    assert pressed(choice, "quit", names, page=3) is None
    assert pressed(Choice(), "down", [], page=3) == Choice() == pressed(Choice(), "open", [], page=3)


def test_sparklines():
    """From least to greatest of what is known; a time without figures stays empty; noise stays flat."""
    points = [(float(at), float(at)) for at in range(8)]
    assert sparkline(points, 8, 8.0, 8.0) == "▁▂▃▄▅▆▇█"
    assert sparkline([(0.0, 1.0), (1.0, None), (7.0, 3.0)], 8, 8.0, 8.0)[2] in "▁ "
    assert sparkline([(0.0, 50.0), (4.0, 50.2)], 2, 8.0, 8.0, least=10.0) == "▁▁"
    assert sparkline([(0.0, None)], 3, 8.0, 8.0) == "   " and sparkline(points, 0, 8.0, 8.0) == ""
    sample = Sample(1.0)
    assert sparkline([(sample.at, sample.temperature)], 2, 8.0, 8.0) == "  "
