"""Sensors are found by what they are, carry where they come from, and are absent rather than 0."""

from pathlib import Path

import pytest

from edgebit.daemon.sensors.system import Sensors

ROOTS = Path(__file__).parents[1] / "roots"


@pytest.mark.parametrize(
    ("device", "celsius", "kind"),
    [("pi4", 48.2, "cpu-thermal"), ("rk3588", 51.0, "soc-thermal"), ("pc", 48.8, "x86_pkg_temp")],
)
def test_the_processors_zone_is_chosen_by_its_type(device, celsius, kind):
    """The number of a zone means nothing: on a PC the first one is the mainboard's."""
    reading = Sensors(ROOTS / device).read()["t_soc"]
    assert (reading.value, reading.unit) == (celsius, "C")
    assert kind in reading.source and reading.measured


@pytest.mark.parametrize(
    ("device", "mhz", "measured"), [("pi4", 1500.0, True), ("rk3588", 2400.0, False), ("pc", 3400.1, False)]
)
def test_a_clock_says_whether_it_was_measured(device, mhz, measured):
    """scaling_cur_freq is what the kernel asked for; firmware may run slower. The fastest core counts."""
    reading = Sensors(ROOTS / device).read()["clock"]
    assert (reading.value, reading.measured) == (mhz, measured)


def test_all_of_a_raspberry_pi():
    """Load, memory and uptime come with their units."""
    readings = Sensors(ROOTS / "pi4").read()
    assert {name: (reading.value, reading.unit) for name, reading in readings.items()} == {
        "t_soc": (48.2, "C"),
        "clock": (1500.0, "MHz"),
        "load_1m": (0.52, "1"),
        "load_5m": (0.58, "1"),
        "mem_total": (3793.2, "MiB"),
        "mem_available": (3146.0, "MiB"),
        "uptime": (87921.33, "s"),
    }


@pytest.mark.parametrize(
    ("device", "absent"),
    [
        ("phone", {"t_soc", "clock", "load_1m", "load_5m"}),
        ("broken", {"t_soc", "clock", "load_1m", "load_5m", "mem_total", "mem_available", "uptime"}),
        ("nothing", {"t_soc", "clock", "load_1m", "load_5m", "mem_total", "mem_available", "uptime"}),
    ],
)
def test_what_is_not_there_is_absent_with_a_reason(device, absent):
    """Never 0: a cold processor and a missing sensor must not look alike."""
    readings = Sensors(ROOTS / device).read()
    assert {name for name, reading in readings.items() if reading.value is None} == absent
    for name in absent:
        body = readings[name].to_json()
        assert "value" not in body and body["absent"] and body["source"]


def test_a_phones_battery_does_not_pass_for_its_processor():
    """The reason names what was there instead."""
    assert "battery" in Sensors(ROOTS / "phone").read()["t_soc"].absent


def test_a_reading_says_how_old_it_is():
    """A slow sensor makes a reading old before it is sent."""
    ticks = iter([10.0, 12.5])
    assert Sensors(ROOTS / "pi4", clock=lambda: next(ticks)).read()["t_soc"].age_s == 2.5
