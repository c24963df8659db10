"""A GGUF file's header and its key-value pairs, read in order and within bounds.

Source: the GGUF specification (ggml, docs/gguf.md), versions 2 and 3. Nothing is allocated for a count before the file
has shown to be long enough for it.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgebit.errors import CheckpointError

GGUF_MAGIC = b"GGUF"
MAX_FRONT_BYTES = 64 << 20  # of header, metadata and tensor table; Gemma's vocabulary of 262,144 tokens takes 16 MB
MAX_FIELDS = 65_536
MAX_ARRAY_ITEMS = 16_777_216  # of all arrays together: tokens, scores, types and merges
MAX_KEY_BYTES = 65_535
MAX_TEXT_BYTES = 16 << 20
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", _BOOL: "<u1", 10: "<u8", 11: "<i8",
    12: "<f8",
}  # fmt: skip

Value = bool | int | float | str | list[str] | NDArray[Any]


class FrontReader:
    """Reads what stands before the tensors, and says where it went wrong."""

    def __init__(self, file: BinaryIO, path: Path, file_size: int) -> None:
        self.path, self._file, self._size = path, file, file_size
        self._limit = min(file_size, MAX_FRONT_BYTES)
        self._items_left = MAX_ARRAY_ITEMS
        self.position = 0

    def fault(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {what}")

    def take(self, n_bytes: int, what: str) -> bytes:
        """The next bytes. Raises CheckpointError where there are not as many."""
        self.need(n_bytes, what)
        data = self._file.read(n_bytes)
        if len(data) != n_bytes:
            raise self.fault(f"ends inside {what}: it became shorter while it was read")
        self.position += n_bytes
        return data

    def need(self, n_bytes: int, what: str) -> None:
        """Raise CheckpointError where the file, or what we read before the tensors, ends sooner."""
        end = self.position + n_bytes
        if end > self._size:
            raise self.fault(f"{what} ends at byte {end}, the file has {self._size}: a copy cut short. Copy it again.")
        if end > self._limit:
            raise self.fault(f"{what} ends at byte {end}; before the tensors {MAX_FRONT_BYTES} bytes are the limit")

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def text(self, what: str, most: int = MAX_TEXT_BYTES) -> str:
        size = self.u64(what)
        if size > most:
            raise self.fault(f"{what} has {size} bytes; {most} are the limit")
        try:
            return self.take(size, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fault(f"{what} is no UTF-8: {error.reason} at its byte {error.start}") from error

    def array(self, what: str) -> list[str] | NDArray[Any]:
        kind, count = self.u32(what), self.u64(what)
        if kind == _ARRAY:
            raise self.fault(f"{what} is an array of arrays, which no key has")
        if kind != _STRING and kind not in _SCALARS:
            raise self.fault(f"{what} is an array of type {kind}, which is not known")
        if count > self._items_left:
            raise self.fault(f"{what} has {count} items; all arrays together may have {MAX_ARRAY_ITEMS}")
        self._items_left -= count
        if kind == _STRING:
            self.need(8 * count, what)
            return [self.text(f"{what}, item {i}") for i in range(count)]
        dtype = np.dtype(_SCALARS[kind])
        values = np.frombuffer(self.take(count * dtype.itemsize, what), dtype)
        return self._booleans(values, what) if kind == _BOOL else values

    def value(self, kind: int, what: str) -> Value:
        if kind == _STRING:
            return self.text(what)
        if kind == _ARRAY:
            return self.array(what)
        if kind not in _SCALARS:
            raise self.fault(f"{what} is of type {kind}, which is not known")
        dtype = np.dtype(_SCALARS[kind])
        values = np.frombuffer(self.take(dtype.itemsize, what), dtype)
        number: Value = (self._booleans(values, what) if kind == _BOOL else values)[0].item()
        return number

    def _booleans(self, values: NDArray[Any], what: str) -> NDArray[np.bool_]:
        if (values > 1).any():
            raise self.fault(f"{what} is {int(values.max())}, and no truth value")
        return values.astype(np.bool_)


def read_counts(reader: FrontReader) -> tuple[int, int]:
    """The number of tensors and of key-value pairs, after the checks of magic, version and byte order."""
    magic = reader.take(4, "the header")
    if magic != GGUF_MAGIC:
        raise reader.fault(f"begins with {magic!r}, and not as a GGUF file does")
    raw = reader.take(4, "the header")
    version = int.from_bytes(raw, "little")
    if version not in (2, 3):
        if struct.unpack(">I", raw)[0] in (2, 3):
            raise reader.fault("is a GGUF file for big-endian machines. Convert the checkpoint without --bigendian")
        raise reader.fault(f"is GGUF version {version}; known are 2 and 3. Convert the checkpoint anew")
    return reader.u64("the header"), reader.u64("the header")


def read_fields(reader: FrontReader, count: int) -> dict[str, Value]:
    """The key-value pairs. Arrays of numbers are numpy arrays, those of texts are lists."""
    if count > MAX_FIELDS:
        raise reader.fault(f"has {count} keys; {MAX_FIELDS} are the limit")
    fields: dict[str, Value] = {}
    for i in range(count):
        key = reader.text(f"key {i}", MAX_KEY_BYTES)
        if key in fields:
            raise reader.fault(f"key {key!r} stands twice")
        fields[key] = reader.value(reader.u32(f"key {key!r}"), f"key {key!r}")
    return fields
