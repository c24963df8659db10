"""What Home Assistant is told of this device: one topic and one document, made from what the device knows of itself.

Source: Home Assistant's documentation, "MQTT", sections "MQTT Discovery", "Sensor", "Binary sensor", "Notify", "Text",
"Button"; units and classes of sensors: "Sensor entity" of its developer documentation.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from edgebit.daemon.contract.topics import DEFAULT_ROOT, DeviceTopics

ANSWER = "answer"  # the id that every question has: one topic, on which the last answer stands
STATE_MAX = 255  # characters of a state; Home Assistant drops a longer one whole
ATTRIBUTE_MAX = 12000  # characters of an answer beside its state; the recorder keeps 16 kB of attributes
SILENT_INTERVALS = 4  # of reports, after which a reading counts as gone
ANSWER_FIGURES = ("id", "call", "done_reason", "eval_count", "total_duration", "energy", "error")
STATES = ("init", "ready", "busy", "hot", "draining", "fault")
_ALERTS = (
    "'messages': value_json.alerts | map(attribute='message') | list,"
    " 'severity': (value_json.alerts | first).severity if value_json.alerts else none"
)

Component = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SensorRow:
    """How one reading of `metrics` is shown."""

    label: str
    unit: str = ""
    device_class: str = ""
    state_class: str = "measurement"
    precision: int = 0
    shown: bool = True  # False: there, and switched on by hand
    scale: str = ""  # of Home Assistant's template language: from our unit to the one that is shown
    main: bool = False  # what people look at, not only those who look after it


# Names and units of the readings: docs/sensors.md.
SENSORS = {
    "t_soc": SensorRow("Temperature", "°C", "temperature", precision=1),
    "clock": SensorRow("Clock", "MHz", "frequency"),
    "clock_asked": SensorRow("Clock asked for", "MHz", "frequency", shown=False),
    "power": SensorRow("Power", "W", "power", precision=1),
    "energy_total": SensorRow("Energy", "Wh", "energy", "total_increasing", 2, scale=" / 3600"),  # joules here
    "battery": SensorRow("Battery", "%", "battery"),
    "t_battery": SensorRow("Battery temperature", "°C", "temperature", precision=1),
    "fan": SensorRow("Fan", "%"),
    "mem_available": SensorRow("Memory available", "MiB", "data_size"),
    "disk_free": SensorRow("Disk free", "MiB", "data_size"),
    "load_1m": SensorRow("Load", precision=2, shown=False),
    "psi_memory": SensorRow("Memory pressure", "%", precision=1, shown=False),
    "uptime": SensorRow("Uptime", "s", "duration", shown=False),
}
# Names and units of the figures: docs/monitoring.md.
FIGURES = {
    "answered": SensorRow("Answers", "answers", state_class="total_increasing"),
    "latency_p95_ms": SensorRow("Answer time, 95 %", "s", "duration", precision=1, scale=" / 1000"),
    "first_token_p50_ms": SensorRow("First word, median", "s", "duration", precision=2, shown=False, scale=" / 1000"),
    "joules_per_token": SensorRow("Energy of a token", "J/token", precision=2),
    "error_rate": SensorRow("Errors", "%", precision=1, shown=False, scale=" * 100"),
}
FLAGS = {
    "throttled": ("Throttled", "problem"),
    "undervoltage": ("Undervoltage", "problem"),
    "freq_capped": ("Frequency capped", "problem"),
    "charging": ("Charging", "battery_charging"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFacts:
    """What the document is made from."""

    topics: DeviceTopics
    principal: str  # whom Home Assistant's questions come from
    version: str  # of edgebit
    machine: str  # what the hardware is
    model: str  # the language model's name; empty: not loaded
    assists: bool  # the model has a schema of its own, so it is asked for a call and not to chat
    sensors: frozenset[str]  # readings that this device has
    interval_s: float  # between two reports

    def with_sensors(self, sensors: frozenset[str]) -> "DeviceFacts":
        """The same of a device that has these readings."""
        return replace(self, sensors=sensors)


def identity(topics: DeviceTopics) -> str:
    """The device's id at Home Assistant, of letters, digits, _ and -; a hash stands for other characters."""
    name = f"{topics.root}_{topics.device}"
    if topics.root == DEFAULT_ROOT and re.fullmatch("[a-z0-9_-]+", name):
        return name
    return re.sub("[^a-z0-9_-]", "-", name) + "-" + hashlib.sha256(topics.base.encode()).hexdigest()[:8]


def discovery_topic(prefix: str, topics: DeviceTopics) -> str:
    """Where the document belongs, retained; an empty message there takes the device away."""
    return f"{prefix}/device/{identity(topics)}/config"


def discovery_document(facts: DeviceFacts) -> dict[str, Any]:
    """The device, its availability, and an entity for everything it can tell or do."""
    topics = facts.topics
    device = {
        "identifiers": [identity(topics)],
        "name": topics.device,
        "manufacturer": "edgebit",
        "model": facts.machine,
        "sw_version": facts.version,
    }
    return {
        "device": device | ({"model_id": facts.model} if facts.model else {}),
        "origin": {"name": "edgebit", "sw_version": facts.version},
        "availability": [
            {
                "topic": topics.availability,
                "value_template": "{{ 'online' if value_json.state == 'online' else 'offline' }}",
            }
        ],
        "qos": 1,
        "components": {name: _finished(name, part, topics) for name, part in _components(facts).items()},
    }


def _components(facts: DeviceFacts) -> dict[str, Component]:
    readings = {
        name: _sensor(f"value_json.sensors.{name}.value", row, facts)
        for name, row in SENSORS.items()
        if name in facts.sensors
    }
    figures = {name: _sensor(f"value_json.{name}", row, facts) for name, row in FIGURES.items()}
    flags = {name: _flag(name, *row, facts) for name, row in FLAGS.items() if name in facts.sensors}
    return {**_conversation(facts), **_work(facts), **figures, **readings, **flags}


def _conversation(facts: DeviceFacts) -> dict[str, Component]:
    """Asking, cancelling, and the last answer: each question has the same id, and the latest one counts."""
    topics, principal = facts.topics, facts.principal
    reply = topics.reply(principal, ANSWER)
    ask = {
        "command_topic": topics.request(principal, "assist" if facts.assists else "chat"),
        "command_template": _request(id=ANSWER, id_mode="latest", reply_to=reply),
    }
    said = "value_json.error.message if value_json.error is defined else value_json.text or '(empty)'"
    figures = ", ".join(f"'{name}': value_json.{name} | default(none)" for name in ANSWER_FIGURES)
    text = f"'text': (value_json.text | default(''))[:{ATTRIBUTE_MAX}]"
    return {
        "ask": {"platform": "notify", "name": "Ask", **ask},
        "prompt": {"platform": "text", "name": "Prompt", "max": STATE_MAX, "icon": "mdi:message-question", **ask},
        "answer": {
            "platform": "sensor",
            "name": "Answer",
            "icon": "mdi:message-reply-text",
            "state_topic": reply,
            "value_template": f"{{{{ ({said})[:{STATE_MAX}] }}}}",
            "json_attributes_topic": reply,
            "json_attributes_template": f"{{{{ {{{text}, {figures}}} | tojson }}}}",
        },
        "cancel": {
            "platform": "button",
            "name": "Cancel",
            "icon": "mdi:stop",
            "command_topic": topics.request(principal, "cancel"),
            "payload_press": json.dumps({"id": ANSWER}),
        },
    }


def _request(**fields: str) -> str:
    """A command template: JSON that holds these fields and, as the prompt, what was said."""
    return f'{json.dumps(fields)[:-1]}, "prompt": {{{{ value | tojson }}}}}}'


def _work(facts: DeviceFacts) -> dict[str, Component]:
    """What `status` says."""
    status = {"platform": "sensor", "state_topic": facts.topics.status, "entity_category": "diagnostic"}
    figure = {**status, "state_class": "measurement"}
    return {
        "state": {
            **status,
            "name": "State",
            "device_class": "enum",
            "options": list(STATES),
            "value_template": "{{ value_json.state }}",
        },
        "tok_s": {
            **figure,
            "name": "Speed",
            "unit_of_measurement": "tok/s",
            "icon": "mdi:speedometer",
            "suggested_display_precision": 1,
            "value_template": "{{ value_json.tok_s_now | default(none) }}",
        },
        "queue": {
            **figure,
            "name": "Queue",
            "unit_of_measurement": "jobs",
            "icon": "mdi:tray-full",
            "value_template": "{{ value_json.queue_len }}",
        },
        "alert": {
            "platform": "binary_sensor",
            "name": "Alert",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": facts.topics.status,
            "value_template": "{{ 'ON' if value_json.alerts else 'OFF' }}",
            "json_attributes_topic": facts.topics.status,
            "json_attributes_template": f"{{{{ {{{_ALERTS}}} | tojson }}}}",
        },
    }


def _sensor(path: str, row: SensorRow, facts: DeviceFacts) -> Component:
    """What stands at `path` in `metrics`. What cannot be told now is absent or null there: `unknown`, and not 0."""
    value = (
        f"({path} | float{row.scale}) | round(4) if {path} is number else none"
        if row.scale
        else f"{path} | default(none)"
    )
    described = {"unit_of_measurement": row.unit, "device_class": row.device_class}
    return {
        "platform": "sensor",
        "name": row.label,
        "state_topic": facts.topics.metrics,
        "value_template": f"{{{{ {value} }}}}",
        "state_class": row.state_class,
        "suggested_display_precision": row.precision,
        "entity_category": "diagnostic",
        "enabled_by_default": row.shown,
        "expire_after": _expiry_s(facts),
        **{key: text for key, text in described.items() if text},
    }


def _flag(name: str, label: str, device_class: str, facts: DeviceFacts) -> Component:
    value = f"value_json.sensors.{name}.value"
    return {
        "platform": "binary_sensor",
        "name": label,
        "device_class": device_class,
        "state_topic": facts.topics.metrics,
        "value_template": f"{{{{ none if {value} is not defined else 'ON' if {value} else 'OFF' }}}}",
        "entity_category": "diagnostic",
        "expire_after": _expiry_s(facts),
    }


def _expiry_s(facts: DeviceFacts) -> int:
    return max(30, math.ceil(SILENT_INTERVALS * facts.interval_s))


def _finished(name: str, part: Component, topics: DeviceTopics) -> Component:
    whole = f"{identity(topics)}_{name}"
    entity = re.sub("[^a-z0-9_]", "_", f"edgebit_{topics.device}_{name}")
    return {**part, "unique_id": whole, "default_entity_id": f"{part['platform']}.{entity}"}
