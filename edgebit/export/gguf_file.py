"""Writes a GGUF file as a stream: one chunk of one tensor in memory at a time, nothing half-made left behind.

Source: docs/gguf.md of ggml, version 3. Own code, for the gguf package knows no I2_S and takes whole tensors.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.part_file import PartFile
from edgebit.errors import ExportError

ALIGNMENT = 32
_MAGIC, _VERSION = b"GGUF", 3
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9  # ids of value types


def u32(value: int) -> bytes:
    return struct.pack("<II", _U32, value)


def i32(value: int) -> bytes:
    return struct.pack("<Ii", _I32, value)


def f32(value: float) -> bytes:
    return struct.pack("<If", _F32, value)


def flag(value: bool) -> bytes:
    return struct.pack("<IB", _BOOL, value)


def text(value: str) -> bytes:
    return struct.pack("<I", _STRING) + _string(value)


def texts(values: Sequence[bytes]) -> bytes:
    """An array of strings, which are UTF-8, or of bytes that a reader takes as they are."""
    return struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(
        struct.pack("<Q", len(value)) + value for value in values
    )


def i32s(values: Sequence[int]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}i", _ARRAY, _I32, len(values), *values)


def f32s(values: Sequence[float]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}f", _ARRAY, _F32, len(values), *values)


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor as the file's table has it."""

    name: str
    shape: tuple[int, ...]  # [rows, columns], or [n]
    type_id: int
    size: int  # bytes


class GgufWriter:
    """A GGUF file in the making: a PartFile.

    write_tensor() for every one of the tensors, in their order, then commit().
    """

    def __init__(self, out: Path, metadata: Mapping[str, bytes], tensors: Sequence[GgufTensor]) -> None:
        """`metadata`: values as the functions above make them. Raises ExportError where OUT cannot be written."""
        self._tensors = iter(tensors)
        self._file = PartFile(out, ExportError)
        try:
            self._write_header(metadata, tensors)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def write_tensor(self, chunks: Iterable[NDArray[Any]]) -> None:
        """The next tensor's bytes. Raises ValueError where they are not as many as its row of the table says."""
        tensor = next(self._tensors)
        written = 0
        for chunk in chunks:
            self._file.write(np.ascontiguousarray(chunk).data.cast("B") if chunk.size else b"")
            written += chunk.nbytes
        self._file.write(bytes(-written % ALIGNMENT))
        if written != tensor.size:
            raise ValueError(f"{tensor.name} takes {tensor.size} bytes, {written} were given")

    def commit(self) -> None:
        """Bring the file to the disk and give it its name."""
        missing = next(self._tensors, None)
        if missing is not None:
            raise ValueError(f"{missing.name} was not written")
        self._file.commit()

    def _write_header(self, metadata: Mapping[str, bytes], tensors: Sequence[GgufTensor]) -> None:
        parts = [_MAGIC, struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
        parts += [_string(key) + value for key, value in metadata.items()]
        offset = 0
        for tensor in tensors:
            shape = tuple(reversed(tensor.shape))
            parts += [
                _string(tensor.name),
                struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor.type_id, offset),
            ]
            offset += tensor.size + -tensor.size % ALIGNMENT
        header = b"".join(parts)
        self._file.write(header + bytes(-len(header) % ALIGNMENT))


def _string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data
