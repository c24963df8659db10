"""MQTT 5 and 3.1.1 packets as a broker reads and writes them: what tests need of them, and nothing else.

Source: OASIS, MQTT Version 5.0 and MQTT Version 3.1.1, chapters 2 and 3.
"""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 10, 11, 12, 13, 14

# Identifier: name and kind of the properties that are read or written here (MQTT 5, table 2-4).
PROPERTIES = {
    0x01: ("payload_format", "u8"),
    0x02: ("expiry_s", "u32"),
    0x03: ("content_type", "text"),
    0x08: ("response_topic", "text"),
    0x09: ("correlation", "data"),
    0x11: ("session_expiry_s", "u32"),
    0x12: ("assigned_client_id", "text"),
    0x17: ("request_problem", "u8"),
    0x18: ("will_delay_s", "u32"),
    0x19: ("request_response", "u8"),
    0x21: ("receive_max", "u16"),
    0x22: ("topic_alias_max", "u16"),
    0x26: ("user", "pair"),
    0x27: ("packet_max", "u32"),
}
_IDENTIFIERS = {name: (number, kind) for number, (name, kind) in PROPERTIES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A PUBLISH; properties under the names of PROPERTIES, `user` a list of pairs, and none under 3.1.1."""

    topic: str
    payload: bytes = b""
    qos: int = 1
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """What a client says first."""

    mqtt5: bool
    client_id: str
    clean: bool
    keepalive_s: int
    will: Message | None
    properties: dict[str, Any]


class Reader:
    """The bytes of one packet, front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise ValueError("the packet ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def varint(self) -> int:
        return read_varint(lambda: self.take(1))

    def data(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        return self.data().decode()

    def properties(self) -> dict[str, Any]:
        inner = Reader(self.take(self.varint()))
        found: dict[str, Any] = {}
        while inner.more:
            name, kind = PROPERTIES[inner.varint()]
            if kind == "pair":
                found.setdefault(name, []).append((inner.text(), inner.text()))
            else:
                readers: dict[str, Callable[[], Any]] = {
                    "u8": lambda: inner.number(1),
                    "u16": lambda: inner.number(2),
                    "u32": lambda: inner.number(4),
                    "text": inner.text,
                    "data": inner.data,
                }
                found[name] = readers[kind]()
        return found


def read_varint(take: Callable[[], bytes]) -> int:
    """A number of one to four bytes, seven bits each, the lowest first."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte = take()[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("a length of more than four bytes")


def read_packet(sock: socket.socket) -> tuple[int, int, bytes]:
    """Kind, flags and body of the next packet. Raises OSError at the connection's end."""
    first = _receive(sock, 1)[0]
    return first >> 4, first & 15, _receive(sock, read_varint(lambda: _receive(sock, 1)))


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("the client closed the connection")
        data += piece
    return data


def varint(value: int) -> bytes:
    """A number in one to four bytes."""
    written = b""
    while True:
        value, byte = value >> 7, value & 0x7F
        written += bytes([byte | (0x80 if value else 0)])
        if not value:
            return written


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A packet with its fixed header."""
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def text(value: str) -> bytes:
    """A string with its length."""
    return data(value.encode("utf-8", "surrogatepass"))


def data(value: bytes) -> bytes:
    """Bytes with their length."""
    return struct.pack("!H", len(value)) + value


def properties(values: dict[str, Any]) -> bytes:
    """Properties with their length."""
    body = b""
    for name, value in values.items():
        number, kind = _IDENTIFIERS[name]
        for item in value if kind == "pair" else [value]:
            body += bytes([number])
            if kind == "pair":
                body += text(item[0]) + text(item[1])
            elif kind in ("text", "data"):
                body += text(item) if kind == "text" else data(item)
            else:
                body += int(item).to_bytes({"u8": 1, "u16": 2, "u32": 4}[kind], "big")
    return varint(len(body)) + body


def read_connect(body: bytes) -> Connect:
    """A CONNECT; user and password are not looked at."""
    reader = Reader(body)
    if reader.text() != "MQTT":
        raise ValueError("no MQTT")
    mqtt5 = reader.number(1) == 5
    flags, keepalive_s = reader.number(1), reader.number(2)
    given = reader.properties() if mqtt5 else {}
    client_id = reader.text()
    will = None
    if flags & 4:
        if mqtt5:
            reader.properties()
        will = Message(topic=reader.text(), payload=reader.data(), qos=flags >> 3 & 3, retain=bool(flags & 32))
    return Connect(
        mqtt5=mqtt5,
        client_id=client_id,
        clean=bool(flags & 2),
        keepalive_s=keepalive_s,
        will=will,
        properties=given,
    )


def connack(mqtt5: bool, session_present: bool, values: dict[str, Any]) -> bytes:
    """The connection is accepted."""
    return packet(CONNACK, bytes([session_present, 0]) + (properties(values) if mqtt5 else b""))


def read_filters(body: bytes, mqtt5: bool, *, options: bool) -> tuple[int, list[tuple[str, int]]]:
    """Packet id, and filters with their options, of a SUBSCRIBE or, without options, an UNSUBSCRIBE."""
    reader = Reader(body)
    packet_id = reader.number(2)
    if mqtt5:
        reader.properties()
    found = []
    while reader.more:
        topic = reader.text()
        found.append((topic, reader.number(1) if options else 0))
    return packet_id, found


def granted(kind: int, packet_id: int, mqtt5: bool, codes: bytes) -> bytes:
    """A SUBACK or UNSUBACK."""
    return packet(kind, struct.pack("!H", packet_id) + (b"\0" if mqtt5 else b"") + codes)


def read_publish(flags: int, body: bytes, mqtt5: bool) -> Message:
    """A PUBLISH."""
    reader = Reader(body)
    topic, qos = reader.text(), flags >> 1 & 3
    packet_id = reader.number(2) if qos else 0
    given = reader.properties() if mqtt5 else {}
    return Message(
        topic=topic,
        payload=reader.rest(),
        qos=qos,
        retain=bool(flags & 1),
        dup=bool(flags & 8),
        packet_id=packet_id,
        properties=given,
    )


def publish(message: Message, mqtt5: bool) -> bytes:
    """The same, to be written."""
    body = text(message.topic)
    if message.qos:
        body += struct.pack("!H", message.packet_id)
    if mqtt5:
        body += properties(message.properties)
    return packet(PUBLISH, body + message.payload, message.dup << 3 | message.qos << 1 | message.retain)


def puback(packet_id: int) -> bytes:
    """A PUBACK that says success, the same in both versions."""
    return packet(PUBACK, struct.pack("!H", packet_id))


def read_puback(body: bytes) -> int:
    """The packet id of a PUBACK."""
    return Reader(body).number(2)
