"""What the owner is told, how often, and that it is an alert like the others wherever these stand."""

import dataclasses
import logging

import jsonschema
import pytest
from mqtt_fixtures import VALIDATORS

from edgebit.daemon.config.sections import Config, PrometheusConfig
from edgebit.daemon.monitoring.exposition import prometheus_text
from edgebit.daemon.monitoring.owner_warnings import OwnerWarnings
from edgebit.daemon.monitoring.prometheus import families_of
from edgebit.daemon.monitoring.watch import Watch


def test_a_warning_is_told_when_it_comes_and_when_it_goes(caplog):
    """The event once, the log whenever its words change; it holds since it came."""
    owner = OwnerWarnings()
    told = []
    with caplog.at_level(logging.INFO, "edgebit.owner"):
        for wall, found in enumerate(
            (
                {"secrets": "2 open"},
                {"secrets": "2 open"},
                {"secrets": "1 open", "clock": "early"},
                {"clock": "early"},
                {},
            )
        ):
            told += [
                (event, facts["name"], facts["message"], facts["since"]) for event, facts in owner.step(found, wall)
            ]
            assert {alert["name"]: alert["message"] for alert in owner.active()} == found
    assert told == [
        ("alert", "secrets", "2 open", 0),
        ("alert", "clock", "early", 2),
        ("alert_cleared", "secrets", "mended", 0),
        ("alert_cleared", "clock", "mended", 2),
    ]
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["2 open", "1 open", "early"]


@pytest.fixture
def watched(tmp_path):
    """A watch whose figures say that the storage fails, the warnings it is given, and the events it has told."""
    warnings, told = {}, []
    watch = Watch(
        dataclasses.replace(Config(), prometheus=PrometheusConfig(listen="127.0.0.1:0")),
        tmp_path,
        situation=lambda: pytest.fail("no level of health is asked for"),
        readings=dict,
        working=dict,
        for_alerts=lambda: {"storage_fault": 1.0},
        warnings=lambda: warnings,
        metrics=dict,
        about=dict,
        publish_event=lambda event, **facts: told.append((event, facts["name"])),
        spawn=lambda name, run: None,
    )
    return watch, warnings, told


def test_a_warning_stands_where_alerts_stand(watched):
    """In status, in metrics, which monitor and Home Assistant read, and in Prometheus' text; gravest first."""
    watch, warnings, told = watched
    warnings["content_filter"] = "rules.txt line 3 is wrong"
    watch.take_figures()
    assert [(alert["name"], alert["severity"]) for alert in watch.alerts()] == [
        ("storage", "critical"),
        ("content_filter", "warning"),
    ]
    jsonschema.validate(watch.alerts(), VALIDATORS["status"].schema["properties"]["alerts"])
    assert watch.alerts()[1]["message"] == "rules.txt line 3 is wrong"
    body = watch.figures([])
    assert [alert["name"] for alert in body["alerts"]] == ["storage", "content_filter"]
    assert 'edgebit_alert{name="content_filter",severity="warning"} 1\n' in prometheus_text(families_of(body, {}))
    warnings.clear()
    watch.take_figures()
    assert [alert["name"] for alert in watch.alerts()] == ["storage"]
    assert told == [("alert", "content_filter"), ("alert", "storage"), ("alert_cleared", "content_filter")]
