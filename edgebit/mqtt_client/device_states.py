"""What devices keep published: whether they are there, what they can do, how they are."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.contract.topics import VERSION, DeviceTopics
from edgebit.mqtt_client.connection import BrokerConnection
from edgebit.mqtt_client.json_payload import parse_json

RETAINED_WAIT_S = 1.0  # a broker sends what it retained at once; this is long


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What the broker has retained of a device."""

    name: str
    availability: str  # online, offline, lost
    info: dict[str, Any]
    status: dict[str, Any]


def read_devices(connection: BrokerConnection, root: str, wait_s: float) -> list[DeviceState]:
    """Every device the broker knows of, by name. Waits `wait_s` for what is retained; leaves other messages be."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    kinds = ("availability", "info", "status")
    connection.subscribe(*(f"{DeviceTopics(root, '+').base}/{kind}" for kind in kinds))
    others = []
    for message in connection.hear(time.monotonic() + wait_s):
        *_, name, kind = message.topic.split("/")
        if kind not in kinds:
            others.append(message)
        elif isinstance(body := parse_json(message.payload), dict):
            found.setdefault(name, {})[kind] = body
    connection.put_back(others)
    return [
        DeviceState(name, str(parts["availability"].get("state")), parts.get("info", {}), parts.get("status", {}))
        for name, parts in sorted(found.items())
        if "availability" in parts
    ]


def read_info(connection: BrokerConnection, topics: DeviceTopics) -> dict[str, Any]:
    """What the broker has retained of a device's abilities; empty where there is nothing."""
    connection.subscribe(topics.info)
    for message in connection.hear(time.monotonic() + RETAINED_WAIT_S):
        if message.topic == topics.info and isinstance(body := parse_json(message.payload), dict):
            connection.unsubscribe(topics.info)
            return body
    return {}


def read_availability(connection: BrokerConnection, topics: DeviceTopics) -> str | None:
    """The state that the broker has retained, whose topic is subscribed to; None where there is none."""
    for message in connection.hear(time.monotonic() + RETAINED_WAIT_S):
        if message.topic == topics.availability:
            return availability_state(message.payload)
    return None


def absence(connection: BrokerConnection, topics: DeviceTopics, state: str | None) -> str:
    """Why a device that is not online cannot be asked."""
    if state is not None:
        meaning = {
            "offline": "it was stopped",
            "lost": "it went away without a word: power, network, or a crash. `edgebit logs` may tell",
        }
        return f"{topics.device} is {state}: {meaning.get(state, 'it cannot be asked now')}"
    known = [device.name for device in read_devices(connection, topics.root, RETAINED_WAIT_S)]
    return f"the broker {connection.broker} knows no device {topics.device!r}. {known_words(known)}"


def known_words(known: Iterable[str]) -> str:
    """The devices that a broker knows, as a sentence."""
    names = ", ".join(sorted(known))
    return f"It knows {names}" if names else "It knows no device at all"


def availability_state(payload: bytes | bytearray) -> str:
    """online, offline or lost; "gone" for what is none."""
    body = parse_json(payload)
    return str(body.get("state")) if isinstance(body, dict) else "gone"


def device_of(root: str, topic: str) -> str:
    """The device's name in one of its topics; empty where it is none."""
    prefix = f"{root}/v{VERSION}/"
    return topic[len(prefix) :].partition("/")[0] if topic.startswith(prefix) else ""
