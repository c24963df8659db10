"""What messages make of a device, whatever anybody publishes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.monitor.detail import detail_lines
from edgebit.monitor.device import (
    ALERTS_MAX,
    EVENTS_MAX,
    KINDS,
    SAMPLES_MAX,
    Device,
    Sample,
    told,
    with_history,
)
from edgebit.monitor.fleet import DEVICES_MAX, Fleet, ordered
from edgebit.monitor.published import ITEMS_MAX, PAYLOAD_MAX, WORDS_MAX, figure, words
from edgebit.monitor.report import report
from edgebit.monitor.view import overview

ONLINE = {"state": "online", "conn": 7}


def hear(device, kind, body, now=100.0, *, retained=False):
    return told(device, kind, json.dumps(body).encode(), now, retained=retained)


def online(**named):
    return hear(Device(name="pi", **named), "availability", ONLINE, retained=True)


def test_figures_come_from_status_and_metrics():
    """The newest message counts; a figure that it calls unknown is unknown, one that it does not have stays."""
    device = hear(online(), "status", {"state": "busy", "t_soc": 60.5, "queue_len": 3, "throttled": True})
    device = hear(device, "metrics", {"t_soc": None, "clock_mhz": 1500, "failed": 2}, 101.0)
    assert device.condition(101.0) == "busy"
    assert device.figures == {"temperature": None, "queue": 3, "throttled": 1, "clock": 1500, "errors": 2}


def test_a_daemon_without_flat_metrics_is_read_too():
    """Then figures stand among its sensors and counters; an absent sensor gives none."""
    sensors = {"t_soc": {"value": 48.2, "unit": "C"}, "power": {"absent": "no meter", "unit": "W"}}
    device = hear(online(), "metrics", {"sensors": sensors, "counters": {"failed": 4}})
    assert device.figures == {"temperature": 48.2, "power": None, "errors": 4}
    assert [(each.name, each.value, each.absent) for each in device.sensors] == [
        ("t_soc", 48.2, ""),
        ("power", None, "no meter"),
    ]


def test_silence_makes_a_device_stale_after_some_of_its_own_intervals():
    """What is said to be online and has not spoken is not shown as well; a word of it makes it so again."""
    device = online(began=0.0, heard=0.0)
    assert not device.is_stale(100.0) and device.is_stale(106.0)
    for at in (100.0, 104.0, 108.0):
        device = hear(device, "metrics", {}, at)
    assert not device.is_stale(120.0) and device.condition(123.0) == "stale"
    assert hear(device, "status", {"state": "ready"}, 200.0).condition(201.0) == "ready"
    assert hear(device, "status", {"state": "ready"}, 200.0, retained=True).condition(201.0) == "stale"


def test_a_lost_message_does_not_make_patience_of_it():
    """One long gap between metrics changes what is usual by a half at most."""
    device = online()
    for at in (100.0, 102.0, 1000.0):
        device = hear(device, "metrics", {}, at)
    assert device.interval_s == 3.0


def test_a_lost_of_an_older_connection_is_old_news():
    """The will of a connection that the device has replaced may come after its online."""
    assert hear(online(), "availability", {"state": "lost", "conn": 6}).availability == "online"
    assert hear(online(), "availability", {"state": "lost", "conn": 7}).availability == "lost"


def test_alerts_and_events():
    """Alerts are those of the last status; events are kept, the newest first."""
    alert = {"name": "heat", "severity": "critical", "message": "84 °C"}
    device = hear(online(), "status", {"alerts": [alert]})
    assert [tuple(each) for each in device.alerts] == [("critical", "heat", "84 °C")]
    assert not hear(device, "status", {"alerts": []}).alerts
    for number in range(20):
        device = hear(device, "event", {"event": f"e{number}", "reason": "why"}, float(number))
    assert [event.name for event in device.events] == [f"e{number}" for number in range(19, 19 - EVENTS_MAX, -1)]


def test_samples_are_bounded_and_a_second_apart():
    """A device that floods does not fill the memory."""
    device = online()
    for number in range(5 * SAMPLES_MAX):
        device = hear(device, "status", {"t_soc": number % 90}, number * 0.5)
    assert len(device.samples) == SAMPLES_MAX
    assert all(after.at - before.at >= 1 for before, after in zip(device.samples, device.samples[1:], strict=False))


def test_the_history_goes_before_what_has_been_seen():
    """And the whole stays bounded, with the newest of it."""
    device = online()
    for at in (1000.0, 1001.0):
        device = hear(device, "status", {"t_soc": 50}, at)
    past = [Sample(float(at), temperature=40.0) for at in range(2000)]
    ats = [sample.at for sample in with_history(device, past).samples]
    assert ats == [float(at) for at in range(1002 - SAMPLES_MAX, 1000)] + [1000.0, 1001.0]
    assert [sample.at for sample in with_history(online(), past[:3]).samples] == [0, 1, 2]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    *(
        "state",
        "conn",
        "t_soc",
        "throttled",
        "tok_s_now",
        "queue_len",
        "sensors",
        "counters",
        "alerts",
        "event",
        "name",
    ),
    *("message", "severity", "model", "bundle", "held_back", "last_error", "uptime_s", "clock_mhz", "value", "unit"),
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=8)


@given(st.lists(st.tuples(st.sampled_from(KINDS), BODIES), max_size=6), st.integers(1, 200))
def test_whatever_is_published_can_be_shown(messages, width):
    """Any type in any field: no fault, no control character, no line that is too long, and JSON that is JSON."""
    fleet = Fleet(lambda: 50.0)
    fleet.hear("pi", "availability", json.dumps(ONLINE).encode())
    for kind, body in messages:
        fleet.hear("pi", kind, json.dumps(body).encode())
    for device in fleet.devices():
        lines = [*overview([device], 60.0, width), *detail_lines(device, 60.0, width)]
        assert all(character.isprintable() for line in lines for character in line.plain)
        assert all(line.cell_len <= max(width, 24) for line in overview([device], 60.0, width))
        json.dumps(report(device, 60.0), allow_nan=False)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_fault(payload):
    """Not JSON, not UTF-8, not an object."""
    fleet = Fleet(lambda: 50.0)
    for kind in (*KINDS, "out", "other"):
        fleet.hear("pi", kind, payload)
        fleet.hear("Nö/pe", kind, payload)
    assert len(fleet.devices()) <= 1


@pytest.mark.parametrize(
    "payload", [b"[" * 60_000, b'{"t_soc":' + b"9" * 5000 + b"}", b" " * (PAYLOAD_MAX + 1) + b"{}"]
)
def test_bodies_that_cost_much_are_left_aside(payload):
    """Deep nesting, endless digits, and more bytes than a daemon sends."""
    device = online()
    assert told(device, "status", payload, 1.0) == device


def test_hostile_sizes_are_cut():
    """Thousands of sensors and alerts, endless texts."""
    sensors = {f"s{number}": {"value": number, "unit": "u" * 99} for number in range(300)}
    alerts = [{"name": "n" * 99, "severity": "s" * 99, "message": "m" * 999}] * 40
    device = hear(online(), "metrics", {"sensors": sensors})
    device = hear(device, "status", {"alerts": alerts, "held_back": "\x1b[2J" * 999, "state": "\x9b31m" + "x" * 99})
    assert len(device.sensors) == ITEMS_MAX and len(device.alerts) == ALERTS_MAX
    assert len(device.held_back) == WORDS_MAX and device.held_back.startswith("\\x1b[2J") and len(device.state) == 16


def test_a_flood_of_names_is_bounded():
    """10,000 devices that are none: so many are kept, and it is said."""
    fleet = Fleet(lambda: 1.0)
    for number in range(10_000):
        fleet.hear(f"fake-{number}", "availability", b'{"state":"online","conn":1}')
    assert len(fleet.devices()) == DEVICES_MAX and fleet.left_out


def test_a_history_takes_back_nothing_that_came_meanwhile():
    """It is read by another thread than the one that hears messages."""
    fleet = Fleet(lambda: 50.0)
    fleet.hear("pi", "availability", b'{"state":"online","conn":1}')

    def past():
        yield Sample(40.0, temperature=60.0)
        fleet.hear("pi", "availability", b'{"state":"lost","conn":1}')

    fleet.remember("pi", past())
    (device,) = fleet.devices()
    assert device.availability == "lost" and len(device.samples) == 1


def test_a_cleared_availability_takes_the_device_away():
    """As with edgebit uninstall, or mosquitto_pub -r -n."""
    fleet = Fleet(lambda: 1.0)
    fleet.hear("pi", "status", b'{"state":"ready"}', retained=True)
    assert fleet.devices() == []
    fleet.hear("pi", "availability", b'{"state":"online","conn":1}')
    assert [device.state for device in fleet.devices()] == ["ready"]
    fleet.hear("pi", "availability", b"")
    assert fleet.devices() == []


@pytest.mark.parametrize("value", [True, None, "1", [1], {}, math.nan, math.inf, -math.inf, 10**400, 1e300])
def test_what_is_no_figure(value):
    """It is unknown, rather than a number."""
    assert figure(value) is None


def test_words_are_one_printable_line():
    """Control characters, C1, bidirectional overrides, half a surrogate pair and line ends are shown, not obeyed."""
    assert words("a\x1b[31m\x9b\u202e\ud800\nb") == "a\\x1b[31m\\x9b\\u202e\\ud800\\x0ab"
    assert words(5) == "" and words("x" * 300, 10) == "xxxxxxxxx…"


@pytest.mark.parametrize(
    ("sort", "reverse", "expected"),
    [
        ("name", False, "abcd"),
        ("name", True, "dcba"),
        ("temp", False, "cabd"),
        ("temp", True, "acbd"),
        ("headroom", False, "acbd"),
    ],
)
def test_the_order(sort, reverse, expected):
    """The hottest first, the least room first; what is not known or not there comes last, by name."""
    temperatures = {"a": {"temperature": 50, "headroom": 1}, "b": {}, "c": {"temperature": 60, "headroom": 2}}
    devices = [Device(name=name, availability="online", figures=each) for name, each in temperatures.items()]
    devices.append(Device(name="d", availability="lost", figures={"temperature": 90, "headroom": 0}))
    assert "".join(device.name for device in ordered(devices[::-1], sort, reverse=reverse)) == expected


def test_the_report_for_scripts():
    """Names carry their units; a device that is away has no figures of now."""
    device = hear(online(), "status", {"state": "hot", "t_soc": 81, "throttled": False, "queue_len": 2})
    told_of = report(device, 103.0)
    assert (told_of["queue"], type(told_of["queue"])) == (2, int)
    assert told_of["temperature_c"] == 81 and told_of["throttled"] is False and told_of["heard_s_ago"] == 3.0
    gone = report(hear(device, "availability", {"state": "lost", "conn": 7}), 103.0)
    assert gone["temperature_c"] is None and gone["throttled"] is None and gone["state"] is None
