"""Our messages as MQTT packets, and MQTT packets as our messages."""

import time
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgebit.daemon.contract.frames import Outgoing
from edgebit.daemon.contract.messages import Incoming

RECEIVE_MAX = 16
PACKET_OVERHEAD = 64  # fixed header, lengths and packet id, beside topic, payload and properties


def connect_properties(session_expiry_s: int, max_packet_bytes: int) -> Properties:
    """What MQTT 5 says of us at the beginning."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_expiry_s
    properties.ReceiveMaximum = RECEIVE_MAX
    properties.MaximumPacketSize = max_packet_bytes
    return properties


def publish_properties(message: Outgoing) -> Properties:
    """What MQTT 5 says of a message beside its payload."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    properties.ContentType = message.content_type
    properties.PayloadFormatIndicator = 1
    if message.user:
        properties.UserProperty = list(message.user)
    return properties


def packet_size(message: Outgoing, properties: Properties | None) -> int:
    """Bytes of a message on the wire, at most."""
    size = PACKET_OVERHEAD + len(message.topic.encode()) + len(message.payload)
    return size if properties is None else size + len(properties.pack())  # type: ignore[no-untyped-call]


def read_message(message: paho.MQTTMessage, *, mqtt5: bool, connection: int, ack: Callable[[], None]) -> Incoming:
    """What has come, just now, on the connection of that number. Raises UnicodeDecodeError for a topic that is none."""
    properties = message.properties
    expiry = getattr(properties, "MessageExpiryInterval", None)
    return Incoming(
        topic=message.topic,
        payload=bytes(message.payload),
        received=time.monotonic(),
        retain=bool(message.retain),
        dup=bool(message.dup),
        mqtt5=mqtt5,
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation=getattr(properties, "CorrelationData", None),
        expiry_s=None if expiry is None else int(expiry),
        content_type=getattr(properties, "ContentType", None),
        user=tuple(getattr(properties, "UserProperty", ())),
        connection=connection,
        packet_id=message.mid,
        ack=ack,
    )
