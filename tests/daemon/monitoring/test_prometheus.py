"""Prometheus' formats, read back by Prometheus' own parsers."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from edgebit.daemon.monitoring.exposition import Family, Sample, openmetrics_text, prometheus_text
from edgebit.daemon.monitoring.prometheus import SERIES, families_of, families_of_rows
from edgebit.daemon.monitoring.quantities import NAMES, QUANTITIES

METRICS = {
    "uptime_s": 12.5,
    **dict.fromkeys(NAMES, 2),
    "power_w": None,
    "totals": {"answer_s": 30.5, "answer_s_count": 3, "first_token_s": 1.5, "first_token_s_count": 3},
    "counters": {"received": 7, "bad_topic": 1},
    "errors": {"queue_full": 4},
    "alerts": [{"name": "heat", "severity": "critical"}],
    "health": {"alive": True, "ready": True, "healthy": False, "why": ["x"]},
    "sensors": {
        "t_soc": {"value": 2, "unit": "C"},
        "t_battery": {"value": 31.5, "unit": "C"},
        "clock_asked": {"value": 1500, "unit": "MHz"},
        "mem_total": {"value": 4000, "unit": "MiB"},
        "power": {"absent": "no power sensor", "unit": "W"},
        "strange": {"value": 1, "unit": "furlong"},
    },
}


def parsed(text):
    """Values by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_figure_has_a_name():
    """And no two share one with the same labels; a quantile is a summary's."""
    assert tuple(SERIES) == NAMES
    assert len({(series.name, tuple(series.labels.items())) for series in SERIES.values()}) == len(NAMES)


def test_units_are_base_units():
    """Seconds, bytes, ratios of 1, and _total for what is counted."""
    found = parsed(prometheus_text(families_of(METRICS, {"device": "pi", "model": 'a "b"\\c\nd'})))
    assert found["edgebit_info", (("device", "pi"), ("model", 'a "b"\\c\nd'))] == 1
    assert found["edgebit_jobs_total", (("outcome", "answered"),)] == 2
    assert found["edgebit_answer_seconds", (("quantile", "0.95"),)] == 0.002
    assert found["edgebit_answer_seconds_sum", ()] == 30.5 and found["edgebit_answer_seconds_count", ()] == 3
    assert found["edgebit_process_memory_bytes", (("pages", "own"),)] == 2 * 2**20
    assert found["edgebit_device_memory_used_ratio", ()] == 0.02
    assert found["edgebit_clock_hertz", (("sensor", "clock_asked"),)] == 1.5e9
    assert found["edgebit_temperature_celsius", (("sensor", "t_battery"),)] == 31.5
    assert found["edgebit_errors_total", (("code", "queue_full"),)] == 4
    assert found["edgebit_events_total", (("event", "received"),)] == 7
    assert found["edgebit_alert", (("name", "heat"), ("severity", "critical"))] == 1
    assert found["edgebit_health", (("level", "healthy"),)] == 0


def test_an_absent_sensor_has_no_value():
    """It is down, and not 0."""
    found = parsed(prometheus_text(families_of(METRICS, {})))
    assert not [key for key in found if key[0] == "edgebit_power_watts"]
    assert found["edgebit_sensor_up", (("sensor", "power"),)] == 0
    assert found["edgebit_sensor_up", (("sensor", "t_soc"),)] == 1
    assert found["edgebit_temperature_celsius", (("sensor", "t_soc"),)] == 2


def test_every_family_has_help_and_type_once():
    """As the format asks for: before its samples, which stand together."""
    text = prometheus_text(families_of(METRICS, {}))
    types = [line.split() for line in text.splitlines() if line.startswith("# TYPE")]
    assert len({name for _, _, name, _ in types}) == len(types)
    for _, _, name, kind in types:
        assert f"# HELP {name} " in text
        assert name.endswith("_total") == (kind == "counter")
    families = list(parser.text_string_to_metric_families(text))
    assert len(families) == len(types) and all(family.samples and family.documentation for family in families)


@given(
    st.dictionaries(st.sampled_from(["device", "code"]), st.text(st.characters(exclude_categories=["Cs"]))),
    st.floats(),
)
def test_any_label_and_value_come_back(labels, value):
    """Quotes, backslashes, line ends; NaN and infinities."""
    if any(character in text for text in labels.values() for character in "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"):
        return  # Python's own splitting of lines, which the parser uses
    family = Family("x", "gauge", 'Help with \\ and \n and "quotes".', [Sample(value, labels)])
    ((name, found), back) = next(iter(parsed(prometheus_text([family])).items()))
    assert name == "x" and dict(found) == labels
    assert back == value or (math.isnan(value) and math.isnan(back))


def test_what_a_broken_device_sends_is_left_out():
    """A message over the network may hold anything."""
    broken = {
        "uptime_s": 1,
        "tok_s": "fast",
        "active": True,
        "counters": [1],
        "errors": {"x": None},
        "sensors": {"a": 3},
    }
    assert parsed(prometheus_text(families_of(broken, {}))) == {
        ("edgebit_info", ()): 1,
        ("edgebit_uptime_seconds", ()): 1,
    }


def test_a_history_is_openmetrics_with_times():
    """Counts are summed up, gauges stand as they are, and what is not known is left out."""
    columns = [
        "t",
        "n",
        "answered",
        "t_soc",
        "t_soc_min",
        "t_soc_max",
        "latency_p95_ms",
        "latency_p95_ms_min",
        "latency_p95_ms_max",
    ]
    rows = [
        [100, 2, 1, 50.5, 50, 51, 1500, 1500, 1500],
        [160, 2, 3, None, None, None, None, None, None],
        [220.5, 1, 0, 52, 52, 52, 900, 900, 900],
    ]
    text = openmetrics_text(families_of_rows(columns, rows))
    found = [
        (sample.name, float(sample.timestamp), sample.value)
        for family in openmetrics.text_string_to_metric_families(text)
        for sample in family.samples
    ]
    assert found == [
        ("edgebit_jobs_total", 100.0, 1.0),
        ("edgebit_jobs_total", 160.0, 4.0),
        ("edgebit_jobs_total", 220.5, 4.0),
        ("edgebit_temperature_celsius", 100.0, 50.5),
        ("edgebit_temperature_celsius", 220.5, 52.0),
        ("edgebit_answer_seconds", 100.0, 1.5),
        ("edgebit_answer_seconds", 220.5, 0.9),
    ]


def test_all_figures_of_a_history_can_be_read():
    """The whole table at once, by the strict parser."""
    columns = ["t", "n", *(quantity.name for quantity in QUANTITIES)]
    rows = [[t, 1, *(1.5 for _ in QUANTITIES)] for t in (0, 60, 120)]
    families = list(openmetrics.text_string_to_metric_families(openmetrics_text(families_of_rows(columns, rows))))
    assert sum(len(family.samples) for family in families) == 3 * len(QUANTITIES)
