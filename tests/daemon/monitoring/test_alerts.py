"""Alerts: raised after their time, cleared by the margin, and no flapping in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.daemon.config.sections import AlertsConfig
from edgebit.daemon.monitoring.alert_rules import rules_of
from edgebit.daemon.monitoring.alerts import Alerts, Rule, body_of

HEAT = Rule(name="heat", figure="t_soc", severity="warning", threshold=80, margin=3, raise_s=60, clear_s=120)
CRITICAL = Rule(name="heat", figure="t_soc", severity="critical", threshold=85, margin=3, raise_s=60, clear_s=120)
DISK = Rule(name="disk", figure="disk_free_mib", severity="warning", threshold=200, margin=20, below=True)
SPEED = Rule(name="speed", figure="tok_s", severity="warning", threshold=2, margin=0.2, below=True, unknown_clears=True)


def run(rules, values, figure="t_soc", step_s=30.0):
    """What changes at which second, for a value each step."""
    alerts, told = Alerts(rules), []
    for number, value in enumerate(values):
        now = number * step_s
        told += [(now, change.state, change.alert.rule.severity) for change in alerts.step({figure: value}, now)]
    return told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([79.9] * 9, []),
        ([80, 80, 79, 80, 80, 79], []),  # never for a minute
        ([80, 80, 80], [(60, "raised", "warning")]),
        ([90, 90, 90, 78, 78, 78, 78, 78, 78], [(60, "raised", "warning")]),  # inside the margin
        ([90, 90, 90, 76, 76, 76, 76, 76], [(60, "raised", "warning"), (210, "cleared", "warning")]),
        ([90, 90, 90, 76, 76, 76, 78, 76, 76, 76, 76, 76], [(60, "raised", "warning"), (330, "cleared", "warning")]),
        (
            [90, 90, 90, None, None, None, None, None],
            [(60, "raised", "warning")],
        ),  # a sensor that is gone clears nothing
        ([90, None, 90, 90], []),  # and what it said before it was gone does not count on
    ],
)
def test_one_level(values, told):
    """A table of what is seen and what is told."""
    assert run([HEAT], values) == told


def test_a_graver_level_takes_the_place_of_the_other():
    """One alert with a severity, told when that changes; it began when the first threshold was passed."""
    values = [82, 82, 82, 86, 86, 86, 81, 81, 81, 81, 81, 76, 76, 76, 76, 76]
    assert run([HEAT, CRITICAL], values) == [
        (60, "raised", "warning"),
        (150, "raised", "critical"),
        (300, "raised", "warning"),
        (450, "cleared", "warning"),
    ]


def test_below_is_bad_for_some():
    """A disk is worse the less is free."""
    assert run([DISK], [150, 150, 150, 210, 210, 210, 230, 230, 230], "disk_free_mib") == [
        (60, "raised", "warning"),
        (240, "cleared", "warning"),
    ]


def test_a_speed_that_nobody_measures_clears():
    """Without requests there is no speed, and so none that is too low."""
    assert run([SPEED], [1, 1, 1, None, None, None], "tok_s") == [
        (60, "raised", "warning"),
        (150, "cleared", "warning"),
    ]


VALUES = st.lists(st.one_of(st.none(), st.floats(60, 100)), max_size=60)


@given(VALUES)
def test_every_alert_clears_once_all_is_well(values):
    """Whatever came before: after clear_s below the margin nothing is raised, and raised and cleared take turns."""
    told = run([HEAT], [*values, *[70.0] * 6])
    assert [state for _, state, _ in told] == ["raised", "cleared"] * (len(told) // 2)


@given(st.lists(st.floats(77.0, 79.999), max_size=60), st.booleans())
def test_nothing_changes_inside_the_hysteresis(values, raised):
    """Neither raised nor cleared, from whichever side it came."""
    before = [90.0] * 3 if raised else [70.0] * 3
    assert len(run([HEAT], [*before, *values])) == (1 if raised else 0)


@given(VALUES, VALUES)
def test_active_is_what_was_told(first, second):
    """status and events never disagree."""
    alerts, open_alerts = Alerts([HEAT, CRITICAL, DISK]), {}
    for number, (heat, disk) in enumerate(zip(first, second, strict=False)):
        for change in alerts.step({"t_soc": heat, "disk_free_mib": disk}, 30.0 * number):
            if change.state == "raised":
                open_alerts[change.alert.rule.name] = change.alert.rule.severity
            else:
                del open_alerts[change.alert.rule.name]
        assert {alert.rule.name: alert.rule.severity for alert in alerts.active()} == open_alerts


def test_0_switches_a_level_off():
    """As the configuration says; what needs no threshold stays."""
    off = AlertsConfig(**dict.fromkeys(AlertsConfig.__slots__, 0.0))
    assert {rule.name for rule in rules_of(off)} == {"undervoltage", "sensor", "storage", "history", "probe"}
    names = {rule.name for rule in rules_of(AlertsConfig())}
    assert names >= {"memory", "cpu", "errors", "heat", "disk"} and not names & {"speed", "latency"}


def test_a_sensor_that_hiccups_is_no_alert():
    """One that is lost for raise_s is; undervoltage is told at once, however short."""
    alerts = Alerts(rules_of(AlertsConfig()))
    assert alerts.step({"sensors_lost": 1.0, "undervoltage": 0.0}, 1000.0) == []
    assert alerts.step({"sensors_lost": 0.0, "undervoltage": 0.0}, 1030.0) == []
    assert [change.alert.rule.name for change in alerts.step({"sensors_lost": 1.0, "undervoltage": 1.0}, 1060.0)] == [
        "undervoltage"
    ]
    assert [change.alert.rule.name for change in alerts.step({"sensors_lost": 1.0}, 1120.0)] == ["sensor"]


def test_an_alert_tells_figure_limit_and_time():
    """In the words of the contract, with the device's own clock."""
    alerts = Alerts([HEAT])
    for now in (1000.0, 1030.0, 1060.0):
        alerts.step({"t_soc": 82.26}, now)
    (alert,) = alerts.active()
    assert body_of(alert, 1060.0, 1_700_000_060.0) == {
        "name": "heat",
        "severity": "warning",
        "figure": "t_soc",
        "value": 82.26,
        "limit": 80,
        "unit": "C",
        "since": 1_700_000_000,
        "message": "t_soc is 82.26 C; warning from 80",
    }
