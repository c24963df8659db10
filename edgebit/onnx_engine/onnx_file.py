"""What an ONNX file says about itself: versions, metadata, inputs, operators, functions, and where its weights lie.

A reader of our own for the few fields that are needed, so that a folder is checked, and a fault in it named, where
onnxruntime alone is installed, or nothing. The file may be anybody's: every length is checked before it is used.
Source: onnx.proto of the ONNX repository (field numbers), and the Protocol Buffers encoding.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgebit.errors import OnnxError
from edgebit.onnx_engine.file_faults import unreadable

FLOAT, INT64 = 1, 7  # TensorProto.DataType
_EXTERNAL = 1  # TensorProto.DataLocation
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_FILE_MAX = 1 << 31  # protobuf's own limit
_SIZE = re.compile(r"[0-9]{1,19}")  # in text; of 64 bits

Dimension = int | str | None  # a size, a size's name, or not told


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of the graph."""

    name: str
    element_type: int
    shape: tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A weight outside the file: `length` bytes at `offset` of `location`, a path beside the file."""

    name: str
    location: str
    offset: int
    length: int | None  # None: to the file's end


@dataclass(slots=True)
class OnnxFile:
    """An ONNX file as far as it was read."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)  # domain ("" is ONNX's own): version
    metadata: dict[str, str] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    operators: dict[tuple[str, str], int] = field(default_factory=dict)  # domain, type: nodes of the main graph
    functions: set[tuple[str, str]] = field(default_factory=set)  # domain, name: those with a body in the file
    external: list[ExternalTensor] = field(default_factory=list)


def read_onnx_file(path: Path) -> OnnxFile:
    """Read the ONNX file at `path`. Raises OnnxError where it is missing, cut short or none."""
    try:
        size = path.stat().st_size
        if not 0 < size < _FILE_MAX:
            raise OnnxError(f"{path} has {size} bytes, an ONNX file 1 to {_FILE_MAX - 1}. Export the model again")
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error, "Export the model again") from error
    reader = _Reader(path)
    try:
        reader.model(data)
    except (_Malformed, UnicodeDecodeError) as error:
        raise OnnxError(
            f"{path} is damaged or no ONNX file: {error}. Copy it again, or export the model again"
        ) from None
    if not reader.file.ir_version or not reader.file.outputs:
        raise OnnxError(f"{path} is damaged or no ONNX file: it has no graph. Copy it again, or export the model again")
    return reader.file


class _Malformed(Exception):
    """Bytes that are no protocol buffer."""


class _Reader:
    """Fills an OnnxFile; each method takes the content of one message."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = OnnxFile()

    def model(self, data: memoryview) -> None:
        for number, value in _fields(data):
            match number, value:
                case 1, int():
                    self.file.ir_version = value
                case 7, memoryview():
                    self._graph(value)
                case 8, memoryview():
                    entry = dict(_fields(value))
                    self.file.opsets[_text(entry.get(1, ""))] = _integer(entry.get(2, 0))
                case 14, memoryview():
                    self.file.metadata.update([_pair(value)])
                case 25, memoryview():
                    function = dict(_fields(value))
                    self.file.functions.add((_text(function.get(10, "")), _text(function.get(1, ""))))

    def _graph(self, data: memoryview) -> None:
        for number, value in _fields(data):
            if not isinstance(value, memoryview):
                continue
            if number == 1:
                node = dict(_fields(value))
                kind = _text(node.get(7, "")), _text(node.get(4, ""))
                self.file.operators[kind] = self.file.operators.get(kind, 0) + 1
            elif number == 5:
                self._initializer(value)
            elif number == 11:
                self.file.inputs.append(_value(value))
            elif number == 12:
                self.file.outputs.append(_value(value))

    def _initializer(self, data: memoryview) -> None:
        name, location = "", 0
        places: dict[str, str] = {}
        for number, value in _fields(data):
            if number == 8:
                name = _text(value)
            elif number == 14:
                location = _integer(value)
            elif number == 13 and isinstance(value, memoryview):
                places.update([_pair(value)])
        if location != _EXTERNAL:
            return
        offset, length = places.get("offset", "0"), places.get("length")
        if not _SIZE.fullmatch(offset) or not (length is None or _SIZE.fullmatch(length)):
            raise _Malformed(f"tensor {name} lies at offset {offset[:20]!r} and has {(length or '')[:20]!r} bytes")
        size = None if length is None else int(length)
        self.file.external.append(ExternalTensor(name, places.get("location", ""), int(offset), size))


def _value(data: memoryview) -> Value:
    """ValueInfoProto -> TypeProto -> TypeProto.Tensor -> TensorShapeProto."""
    fields = dict(_fields(data))
    tensor = dict(_fields(_message(dict(_fields(_message(fields.get(2)))).get(1))))
    shape = []
    for number, value in _fields(_message(tensor.get(2))):
        if number == 1:
            dimension = dict(_fields(_message(value)))
            shape.append(_integer(dimension[1]) if 1 in dimension else _text(dimension[2]) if 2 in dimension else None)
    return Value(_text(fields.get(1, "")), _integer(tensor.get(1, 0)), tuple(shape))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: number, and an integer or the bytes of a text or message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:
            raise _Malformed(f"a field of wire type {wire}")
        if size > len(data) - at:
            raise _Malformed(f"a field of {size} bytes where {len(data) - at} are left: it is cut short")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Malformed("a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _Malformed("a number of more than 10 bytes")


def _pair(data: memoryview) -> tuple[str, str]:
    """StringStringEntryProto."""
    entry = dict(_fields(data))
    return _text(entry.get(1, "")), _text(entry.get(2, ""))


def _text(value: int | memoryview | str) -> str:
    if isinstance(value, int):
        raise _Malformed("a number stands where a text belongs")
    return value if isinstance(value, str) else bytes(value).decode()


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise _Malformed("a text stands where a number belongs")
    return value


def _message(value: int | memoryview | None) -> memoryview:
    if isinstance(value, int):
        raise _Malformed("a number stands where a message belongs")
    return memoryview(b"") if value is None else value
