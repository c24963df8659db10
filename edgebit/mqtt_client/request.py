"""A request to a device: its id, what is sent, and where its answers are waited for."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgebit.daemon.contract.topics import DeviceTopics


@dataclass(slots=True)
class Call:
    """A request on its way: whom it went to, and where what comes of it is heard until when."""

    topics: DeviceTopics
    place: str
    deadline: float  # monotonic seconds
    kept_as: str = ""  # the id under which the device may have the answer later; empty: it keeps none


def new_id() -> str:
    """An id for a request that no other has."""
    return secrets.token_hex(8)


def request_properties(job_id: str, reply_topic: str | None, timeout_s: float) -> Properties:
    """What MQTT 5 says of a request beside its payload."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if reply_topic is not None:
        properties.ResponseTopic = reply_topic
    properties.CorrelationData = job_id.encode()
    properties.MessageExpiryInterval = max(1, int(timeout_s))
    properties.ContentType = "application/json"
    properties.PayloadFormatIndicator = 1
    return properties


def fields_for_properties(reply_topic: str | None, timeout_s: float) -> Mapping[str, Any]:
    """The same in fields of the payload, for 3.1.1, and where properties cannot be trusted."""
    ttl = {"ttl_ms": max(1, int(timeout_s * 1000))}
    return ttl if reply_topic is None else {**ttl, "reply_to": reply_topic}
