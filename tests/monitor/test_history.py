"""A device's own history, as samples and as a picture."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.errors import DeviceError, NoAnswerError
from edgebit.line_plot import svg_of
from edgebit.monitor.history import ask_history, picture, read_history, samples_of

COLUMNS = ["t", "n", "t_soc", "t_soc_min", "t_soc_max", "throttled", "throttled_max"]


def reply(rows, **named):
    body = {"op": "history", "now": 2000.0, "interval_s": 30, "step_s": 60, "columns": COLUMNS, "rows": rows}
    return {**body, "next": None, **named}


def row(t, celsius=50.0, throttled=0.0):
    return [t, 2, celsius, celsius, celsius, throttled, float(throttled > 0)]


class Device:
    """Answers requests for history with `pages`, one after the other."""

    def __init__(self, *pages):
        self.pages = list(pages)
        self.asked = []

    def ask(self, device, op, fields, *, timeout_s):
        self.asked.append((device, op, dict(fields)))
        return self.pages.pop(0)


def test_samples_have_this_machines_time():
    """A row is as old as the device says, by its own clock, which may be anywhere; it stands for its middle."""
    history = read_history("pi5", reply([row(1880, 40.0), row(1940, 41.0)]))
    assert [(sample.at, sample.temperature, sample.throttled) for sample in samples_of(history, 500.0)] == [
        (410.0, 40.0, 0.0),
        (470.0, 41.0, 0.0),
    ]


def test_all_pages_are_asked_for():
    """Each from where the one before ended."""
    device = Device(reply([row(0)], next=0), reply([row(60)], next=60), reply([row(120)]))
    assert [each["t"] for each in ask_history(device, "pi5", 86400.0).rows] == [0, 60, 120]
    assert [fields.get("after") for _, _, fields in device.asked] == [None, 0, 60]
    assert device.asked[0][2]["since_s"] == 86400.0 and device.asked[0][2]["step_s"] == 144


def test_pages_without_end_do_not_go_on_for_ever():
    """A device that always has one page more is left after some; one that has none is said so."""
    assert len(ask_history(Device(*([reply([row(0)], next=0)] * 1000)), "pi5", 3600.0).rows) == 200
    with pytest.raises(NoAnswerError, match="remembers nothing of that time"):
        ask_history(Device(reply([])), "pi5", 3600.0)


def test_the_picture_shows_what_is_known():
    """A panel for each figure that the device has; throttled times are one span; a time without rows is a gap."""
    rows = [row(t, 50.0 + t / 60, float(120 <= t < 240)) for t in (0, 60, 120, 180, 240, 600, 660)]
    drawn = picture(read_history("pi5", reply(rows)))
    (panel,) = drawn.panels
    assert panel.title == "temperature, °C" and list(panel.spans) == [(120.0, 240.0)]
    assert list(panel.series[0].points)[4:6] == [(270.0, 54.0), (300.0, None)]
    assert drawn.title == "pi5: 33 min" and "throttled" in drawn.subtitle and "<polyline" in svg_of(drawn)


def test_a_picture_of_nothing_says_so():
    """No figure at all is no fault."""
    drawn = picture(read_history("pi5", reply([[0, 1, None, None, None, None, None]])))
    assert not drawn.panels and drawn.subtitle == "no figure is known of that time" and "</svg>" in svg_of(drawn)


ANYTHING = st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.booleans() | st.lists(st.integers())
BODIES = st.fixed_dictionaries(
    {
        "now": ANYTHING | st.just(2000.0),
        "step_s": ANYTHING | st.just(60),
        "columns": ANYTHING | st.lists(st.sampled_from(COLUMNS) | ANYTHING),
        "rows": ANYTHING | st.lists(st.lists(st.floats() | ANYTHING), max_size=5),
        "next": ANYTHING,
    }
)


@given(BODIES)
def test_whatever_is_answered_is_a_history_or_refused(body):
    """Hostile answers: wrong types, columns twice, rows of any length, figures beyond all measure."""
    try:
        history = read_history("pi5", json.loads(json.dumps(body)))
    except DeviceError as refused:
        assert "pi5" in str(refused)
        return
    list(samples_of(history, 0.0))
    if history.rows:
        svg_of(picture(history))
