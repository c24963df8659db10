"""Wyoming's framing: a line of JSON, then as many bytes of data and of payload as it says.

Source: the README of the Wyoming protocol (OHF-Voice/wyoming), "Format". Data may stand in the line, in the bytes after
it, or in both; what is written here stands after it.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgebit.daemon.contract.frames import encode_json

LINE_MAX = 65_536  # bytes; older speakers put their data in here
DATA_MAX = 262_144
PAYLOAD_MAX = 262_144  # audio, which nobody sends to a service of this kind


class ProtocolError(Exception):
    """What came is not an event of Wyoming's."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; its payload is read and dropped."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)


def encode_event(event: Event) -> bytes:
    """The bytes of an event."""
    header: dict[str, Any] = {"type": event.type}
    data = encode_json(event.data) if event.data else b""
    if data:
        header["data_length"] = len(data)
    return encode_json(header) + b"\n" + data


async def read_event(reader: asyncio.StreamReader, *, patience_s: float) -> Event | None:
    """The next event, waited for as long as it takes; None where the other side has ended.

    patience_s: from its first byte to its last. Raises ProtocolError where it takes longer, is too large, or no event.
    """
    first = await reader.read(1)
    if not first:
        return None
    try:
        async with asyncio.timeout(patience_s):
            return await _read_rest(reader, first)
    except TimeoutError:
        raise ProtocolError(f"an event was not complete within {patience_s:g} s") from None
    except asyncio.IncompleteReadError:
        raise ProtocolError("the connection ended within an event") from None
    except asyncio.LimitOverrunError:
        raise ProtocolError(f"a line of more than {LINE_MAX} bytes") from None


async def _read_rest(reader: asyncio.StreamReader, first: bytes) -> Event:
    header = _object(first if first == b"\n" else first + await reader.readuntil(b"\n"), "the line")
    kind = header.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("an event without a type")
    data = header.get("data") or {}
    if not isinstance(data, dict):
        raise ProtocolError("data is not an object")
    payload_length = _length(header, "payload_length", PAYLOAD_MAX)
    if data_length := _length(header, "data_length", DATA_MAX):
        data = {**data, **_object(await reader.readexactly(data_length), "the data")}
    if payload_length:
        await reader.readexactly(payload_length)
    return Event(kind, data)


def _length(header: Mapping[str, Any], name: str, most: int) -> int:
    value = header.get(name) or 0
    if type(value) is not int or not 0 <= value <= most:
        raise ProtocolError(f"{name} is {value!r:.40}, it must lie between 0 and {most}")
    return value


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError(f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is not a JSON object")
    return value
