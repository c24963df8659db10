"""What Home Assistant is told: its rules for topics, units, classes and lengths, and what its templates give."""

import json
import re
from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined
from mqtt_fixtures import VALIDATORS

from edgebit.daemon.contract.requests import NOT_FOR_ASSIST
from edgebit.daemon.contract.topics import DeviceTopics
from edgebit.daemon.home_assistant.discovery import (
    ATTRIBUTE_MAX,
    FIGURES,
    FLAGS,
    SENSORS,
    STATE_MAX,
    DeviceFacts,
    discovery_document,
    discovery_topic,
    identity,
)

TOPICS = DeviceTopics("edgebit", "pi5")
# Units and state classes that Home Assistant allows for a device class.
# Source: homeassistant/components/sensor/const.py of 2026.2, DEVICE_CLASS_UNITS and DEVICE_CLASS_STATE_CLASSES.
ALLOWED = {
    "temperature": ({"°C", "°F", "K"}, {"measurement"}),
    "frequency": ({"Hz", "kHz", "MHz", "GHz"}, {"measurement"}),
    "power": ({"mW", "W", "kW", "MW", "GW", "TW"}, {"measurement"}),
    "energy": ({"J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh"}, {"total", "total_increasing"}),
    "battery": ({"%"}, {"measurement"}),
    "data_size": ({"B", "kB", "MB", "GB", "KiB", "MiB", "GiB"}, {"measurement", "total", "total_increasing"}),
    "duration": ({"d", "h", "min", "s", "ms", "us"}, {"measurement", "total", "total_increasing"}),
}


def facts(**changes):
    everything = frozenset(SENSORS) | frozenset(FLAGS)
    given = {"topics": TOPICS, "principal": "homeassistant", "version": "1.0", "machine": "Raspberry Pi 5"}
    given |= {"model": "tiny", "assists": False, "sensors": everything, "interval_s": 30.0}
    return DeviceFacts(**{**given, **changes})


def document(**changes):
    return discovery_document(facts(**changes))


def rendered(template, payload=None, *, value=None):
    """What Home Assistant makes of a template: `value_json` is undefined for what is no JSON; None means unknown."""
    environment = Environment(undefined=StrictUndefined)
    return environment.from_string(template).render(value_json=payload, value=value)


def test_the_topic_and_the_envelope():
    """Device discovery, with what Home Assistant requires: an identifier, an origin, a platform of every component."""
    assert discovery_topic("homeassistant", TOPICS) == "homeassistant/device/edgebit_pi5/config"
    whole = document()
    assert whole["device"]["identifiers"] == ["edgebit_pi5"] and whole["origin"]["name"] == "edgebit"
    assert {part["platform"] for part in whole["components"].values()} == {
        "sensor", "binary_sensor", "notify", "text", "button",
    }  # fmt: skip
    assert "model_id" not in document(model="")["device"]


@pytest.mark.parametrize("root", ["edgebit", "site/a"])
@pytest.mark.parametrize("device", ["pi.local", "pi-local", "pi_local", "a" * 64])
def test_ids_are_unique_and_made_of_what_is_allowed(root, device):
    """Home Assistant takes letters, digits, _ and - in a discovery topic, and a device's name may hold more."""
    topics = DeviceTopics(root, device)
    trimmed = discovery_topic("ha", topics).removeprefix("ha/")
    assert re.fullmatch(r"\w+/(?P<object_id>[a-zA-Z0-9_-]+)/config", trimmed)
    others = [DeviceTopics(r, d) for r in ("edgebit", "site/a", "site-a") for d in ("pi.local", "pi-local", "pi_local")]
    assert identity(topics) not in {identity(other) for other in others if other != topics}


def test_entities_are_told_apart():
    """unique_id for ever, default_entity_id in the platform's own domain and made of what an entity's id may hold."""
    parts = document(topics=DeviceTopics("edgebit", "pi-5.local"))["components"]
    assert len({part["unique_id"] for part in parts.values()}) == len(parts)
    for part in parts.values():
        assert re.fullmatch(rf"{part['platform']}\.[a-z0-9_]+", part["default_entity_id"])
        assert "object_id" not in part  # of no use since 2026.4


def test_units_and_classes():
    """Each sensor's unit and state class are among those of its device class, and no row is missing here."""
    parts = [part for part in document()["components"].values() if part["platform"] == "sensor"]
    seen = set()
    for part in parts:
        if part.get("device_class") in (None, "enum"):
            continue
        units, classes = ALLOWED[part["device_class"]]
        assert part["unit_of_measurement"] in units and part["state_class"] in classes, part
        seen.add(part["device_class"])
    assert seen == set(ALLOWED)


def test_only_what_the_device_has():
    """A device without sensors still has its state, and can be asked."""
    assert set(document(sensors=frozenset())["components"]) == {
        "ask", "prompt", "answer", "cancel", "state", "tok_s", "queue", "alert", *FIGURES,
    }  # fmt: skip
    assert "power" not in document(sensors=frozenset({"t_soc"}))["components"]


METRICS = {
    "answered": 12,
    "latency_p95_ms": 3250.0,
    "joules_per_token": None,
    "error_rate": None,
    "sensors": {
        "t_soc": {"value": 61.5},
        "energy_total": {"value": 5400.0},
        "power": {"absent": "the meter is silent"},
        "throttled": {"value": 1},
        "charging": {"value": 0},
        "undervoltage": {"absent": "cannot be read now"},
    },
}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("t_soc", "61.5"),
        ("energy_total", "1.5"),  # Wh
        ("power", "None"),
        ("answered", "12"),
        ("latency_p95_ms", "3.25"),  # s
        ("joules_per_token", "None"),
        ("error_rate", "None"),
        ("throttled", "ON"),
        ("charging", "OFF"),
        ("undervoltage", "None"),
    ],
)
def test_readings(name, shown):
    """A value in Home Assistant's unit; one that is absent now is `None`, which is unknown there, and never 0."""
    assert rendered(document()["components"][name]["value_template"], METRICS) == shown


def test_alerts():
    """Any alert is a problem; what they say stands beside, the gravest first."""
    part = document()["components"]["alert"]
    heat = {"name": "heat", "severity": "critical", "message": "84 °C"}
    raised = {"alerts": [heat, {"name": "disk", "severity": "warning", "message": "5 MiB"}]}
    assert [rendered(part["value_template"], status) for status in (raised, {"alerts": []})] == ["ON", "OFF"]
    attributes = [json.loads(rendered(part["json_attributes_template"], body)) for body in (raised, {"alerts": []})]
    assert attributes == [
        {"messages": ["84 °C", "5 MiB"], "severity": "critical"},
        {"messages": [], "severity": None},
    ]


def test_a_reading_goes_away_with_its_reports():
    """Metrics are not retained: when they stop, so does the entity."""
    parts = document(interval_s=60.0)["components"]
    assert parts["t_soc"]["expire_after"] == 240 and parts["throttled"]["expire_after"] == 240
    assert parts["t_soc"]["state_topic"] == TOPICS.metrics


@pytest.mark.parametrize(("state", "shown"), [("online", "online"), ("offline", "offline"), ("lost", "offline")])
def test_availability(state, shown):
    """Home Assistant knows two words; `lost` is the will's."""
    (way,) = document()["availability"]
    assert way["topic"] == TOPICS.availability
    assert rendered(way["value_template"], {"state": state, "conn": 3}) == shown


@pytest.mark.parametrize("assists", [False, True])
@pytest.mark.parametrize("name", ["ask", "prompt"])
@pytest.mark.parametrize("said", ["Why is the sky blue?", 'She said "no" \\ {{ x }}\n</script> \U0001d11e', "'", "{"])
def test_a_question_becomes_a_request(name, said, assists):
    """Whatever is said: JSON of the schema that requests have, answered on the one topic of the answer's sensor.

    A model that is an assistant is asked to assist, and takes the request as one.
    """
    part = document(assists=assists)["components"][name]
    op = part["command_topic"].removeprefix("edgebit/v1/pi5/in/homeassistant/")
    assert op == ("assist" if assists else "chat")
    request = json.loads(rendered(part["command_template"], value=said))
    VALIDATORS["request"].validate(request)
    assert request["prompt"] == said
    assert request["reply_to"] == document()["components"]["answer"]["state_topic"]
    assert TOPICS.refusal(request["reply_to"], "homeassistant") is None
    if assists:
        assert not set(NOT_FOR_ASSIST) & set(request)


def test_the_cancel_button():
    """It names the one id that questions have."""
    parts = document()["components"]
    question = json.loads(rendered(parts["ask"]["command_template"], value="hi"))
    assert json.loads(parts["cancel"]["payload_press"]) == {"id": question["id"]}
    assert parts["cancel"]["command_topic"] == "edgebit/v1/pi5/in/homeassistant/cancel"


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        ({"id": "answer", "text": "Because."}, "Because."),
        ({"id": "answer", "text": ""}, "(empty)"),
        ({"id": "answer", "text": "On.", "call": {"intent": "turn_on", "name": "lamp"}}, "On."),
        ({"id": "answer", "text": "é" * 300}, "é" * STATE_MAX),
        ({"id": "answer", "error": {"message": "8 jobs are waiting already"}}, "8 jobs are waiting already"),
    ],
)
def test_the_answer(reply, state):
    """A state has 255 characters at most; all of the text stands in the attributes, up to what is recorded of them."""
    part = document()["components"]["answer"]
    assert rendered(part["value_template"], reply) == state
    attributes = json.loads(rendered(part["json_attributes_template"], reply))
    assert attributes["text"] == reply.get("text", "") and attributes["error"] == reply.get("error")
    assert attributes["call"] == reply.get("call")


def test_a_very_long_answer():
    """The recorder of Home Assistant drops all attributes where they are above 16 kB."""
    template = document()["components"]["answer"]["json_attributes_template"]
    assert len(rendered(template, {"id": "answer", "text": "x" * 50_000})) < ATTRIBUTE_MAX + 500


def test_states_are_those_of_status():
    """Home Assistant refuses a state that is none of an entity's options."""
    schema = json.loads((Path(__file__).parents[3] / "docs/schemas/status.json").read_text())
    assert document()["components"]["state"]["options"] == schema["properties"]["state"]["enum"]
