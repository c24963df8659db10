"""The safetensors container, read a few rows at a time and written as a stream.

Source: the format's own description (8 bytes little-endian header size, a JSON header, then the tensors' bytes without
holes). Files are read with positioned reads, not mapped: the memory in use stays that of one chunk, and a file that
is cut short while we read it is an error of ours to report instead of a SIGBUS.
"""

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.json_text import MAX_JSON_BYTES
from edgebit.checkpoint.positioned_reads import CheckedFile, read_at
from edgebit.errors import CheckpointError
from edgebit.ternary.bfloat16 import bfloat16_values

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_NUMPY_DTYPES = {"U8": "<u1", "I8": "<i1", "F16": "<f2", "BF16": "<u2", "F32": "<f4"}  # numpy has no bf16: its bits


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a safetensors file: where it lies, in bytes from the start of the file, and what it holds."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class SafetensorsFile(CheckedFile):
    """An open safetensors file whose header has been checked against itself and against the size of the file."""

    def _check(self) -> None:
        self.size = os.fstat(self._file.fileno()).st_size
        self.tensors, self.metadata = _read_header(self._file, self.path, self.size)

    def read(self, name: str, first_row: int = 0, n_rows: int | None = None) -> NDArray[Any]:
        """Rows first_row .. first_row + n_rows of a tensor, all columns; of bf16 the bits, as uint16.

        Raises CheckpointError where the type is none that edgebit reads, or the file has become shorter.
        """
        return read_rows(self._file, self.path, name, self.tensors[name], first_row, n_rows)


def read_rows(
    file: BinaryIO, path: Path, name: str, info: TensorInfo, first_row: int = 0, n_rows: int | None = None
) -> NDArray[Any]:
    """SafetensorsFile.read() of a tensor that lies in an open file as `info` says."""
    if info.dtype not in _NUMPY_DTYPES:
        known = ", ".join(_NUMPY_DTYPES)
        raise CheckpointError(f"{path}: tensor {name} is of type {info.dtype}; known are {known}")
    dtype = np.dtype(_NUMPY_DTYPES[info.dtype])
    rows = info.shape[0] if info.shape else 1
    n_rows = rows - first_row if n_rows is None else min(n_rows, rows - first_row)
    row_len = math.prod(info.shape[1:])
    start, n_bytes = info.offset + first_row * row_len * dtype.itemsize, n_rows * row_len * dtype.itemsize
    out = read_at(file, path, start, n_bytes, f"tensor {name}").view(dtype)
    return out.reshape((n_rows, *info.shape[1:])) if info.shape else out.reshape(())


def as_float32(values: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The float32 values of what SafetensorsFile.read() gave for a tensor of type F32, F16 or BF16: exact."""
    if dtype == "BF16":
        return bfloat16_values(values)
    return values.astype(np.float32, copy=False)


def _read_header(file: BinaryIO, path: Path, file_size: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    if file_size < 8:
        raise CheckpointError(f"{path}: {file_size} bytes are no safetensors file: a copy cut short. Copy it again.")
    (header_size,) = struct.unpack("<Q", file.read(8))
    if header_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: a header of {header_size} bytes; {MAX_JSON_BYTES} are the limit")
    if 8 + header_size > file_size:
        raise CheckpointError(
            f"{path}: the header ends at byte {8 + header_size}, the file has {file_size}: cut short. Copy it again."
        )
    try:
        header = json.loads(file.read(header_size).decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is damaged: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ in the header does not map names to texts")
    data_start = 8 + header_size
    tensors = {name: _tensor_info(path, name, entry, data_start, file_size) for name, entry in header.items()}
    expected = data_start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].size)):
        if info.offset != expected:
            fault = "overlaps the tensor before it" if info.offset < expected else "leaves a hole before it"
            raise CheckpointError(f"{path}: tensor {name} at byte {info.offset} {fault}, which ends at byte {expected}")
        expected = info.offset + info.size
    if expected != file_size:
        raise CheckpointError(f"{path}: the tensors end at byte {expected}, the file has {file_size}. Copy it again.")
    return tensors, metadata


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for key, value in pairs:
        if key in keys:
            raise ValueError(f"{key!r} stands twice")
        keys[key] = value
    return keys


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _tensor_info(path: Path, name: str, entry: object, data_start: int, file_size: int) -> TensorInfo:
    if not name.isprintable():
        raise CheckpointError(f"{path}: tensor {name!r} has a name that cannot be printed")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: tensor {name}: the header must give dtype, shape and data_offsets, and no more")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise CheckpointError(f"{path}: tensor {name}: unknown dtype {dtype!r}")
    if not isinstance(shape, list) or not all(_is_count(dim) for dim in shape):
        raise CheckpointError(f"{path}: tensor {name}: the shape {shape!r} is no list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(offset) for offset in offsets):
        raise CheckpointError(f"{path}: tensor {name}: data_offsets {offsets!r} are no two byte offsets")
    begin, end = offsets
    size = math.prod(shape) * DTYPE_BYTES[dtype]
    if end < begin or end - begin != size:
        raise CheckpointError(
            f"{path}: tensor {name}: {dtype} {shape} takes {size} bytes, data_offsets give {end - begin}"
        )
    end += data_start
    if end > file_size:
        raise CheckpointError(
            f"{path}: tensor {name} ends at byte {end}, the file has {file_size}: a copy cut short. Copy it again."
        )
    return TensorInfo(dtype, tuple(shape), data_start + begin, size)


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    chunks: Iterable[bytes | memoryview | NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file as a stream: `tensors` gives dtype and shape of each, `chunks` their bytes in order.

    Raises ValueError where the chunks are not exactly as many bytes as the tensors take.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    written = 0
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for chunk in _flat(chunks):
            written += len(chunk)
            file.write(chunk)
    if written != end:
        raise ValueError(f"{path}: the tensors take {end} bytes, {written} were given")


def _flat(chunks: Iterable[bytes | memoryview | NDArray[Any]]) -> Iterator[memoryview]:
    for chunk in chunks:
        view = np.ascontiguousarray(chunk).data if isinstance(chunk, np.ndarray) else memoryview(chunk)
        if view.nbytes:
            yield view.cast("B")
