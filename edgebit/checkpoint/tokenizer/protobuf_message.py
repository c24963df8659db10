"""Protocol buffers' wire format: the fields of one message (protobuf.dev, "Encoding")."""

from collections.abc import Iterator

from edgebit.errors import TokenizerError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field as it stands: a varint as a number, all else as its bytes.

    Raises TokenizerError where the bytes are no message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire_type = key >> 3, key & 7
        if number == 0 or wire_type not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise TokenizerError(f"no protobuf message: field {number} of wire type {wire_type} before byte {at}")
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire_type, 0)
        if wire_type == _BYTES:
            size, at = _varint(message, at)
        if size > len(message) - at:
            raise TokenizerError(f"no protobuf message: field {number} at byte {at} has {size} bytes, past its end")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        if at + place >= len(message):
            break
        byte = message[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise TokenizerError(f"no protobuf message: the number at byte {at} does not end")
