"""The GGUF container: its metadata, and its tensors read a few rows at a time.

Source: the GGUF specification (ggml, docs/gguf.md). As with safetensors, files are read with positioned reads and not
mapped. What type a tensor is of is not decided here: a type's number means different things in different programs, so
the table tells how many bytes a tensor has (edgebit/checkpoint/gguf_file/tensor_types.py).
"""

import math
import os
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.gguf_file.metadata import GGUF_MAGIC, FrontReader, Value, read_counts, read_fields
from edgebit.checkpoint.positioned_reads import CheckedFile, read_at

__all__ = ["GGUF_MAGIC", "GgufFile", "StoredTensor"]

MAX_TENSORS = 65_536
MAX_NAME_BYTES = 256  # ggml itself takes 63
MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One row of the tensor table."""

    name: str
    type_id: int
    shape: tuple[int, ...]  # rows first, as numpy has it; the file has the columns first
    offset: int  # from the start of the file
    span: int  # bytes up to the next tensor or the end of the file: its size, and what fills it up to the alignment

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class GgufFile(CheckedFile):
    """An open GGUF file whose header, metadata and tensor table have been checked."""

    def _check(self) -> None:
        self.size = os.fstat(self._file.fileno()).st_size
        reader = FrontReader(self._file, self.path, self.size)
        n_tensors, n_fields = read_counts(reader)
        self.fields = read_fields(reader, n_fields)
        self.alignment = _alignment(reader, self.fields)
        self.tensors = _read_table(reader, n_tensors, self.alignment, self.size)

    def read(self, tensor: StoredTensor, start: int, n_bytes: int) -> NDArray[np.uint8]:
        """Bytes `start` to `start + n_bytes` of a tensor. Raises CheckpointError where the file has become shorter."""
        return read_at(self._file, self.path, tensor.offset + start, n_bytes, f"tensor {tensor.name}")


def _alignment(reader: FrontReader, fields: dict[str, Value]) -> int:
    value = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
    known = isinstance(value, int) and not isinstance(value, bool) and 8 <= value <= _MAX_ALIGNMENT
    if not known or not isinstance(value, int) or value & (value - 1):
        raise reader.fault(f"general.alignment is {value!r}; a power of two from 8 to {_MAX_ALIGNMENT} is needed")
    return value


def _read_table(reader: FrontReader, count: int, alignment: int, file_size: int) -> dict[str, StoredTensor]:
    if not count:
        return {}  # of the first of several parts
    if count > MAX_TENSORS:
        raise reader.fault(f"has {count} tensors; {MAX_TENSORS} are the limit")
    tensors: dict[str, StoredTensor] = {}
    for i in range(count):
        tensor = _read_row(reader, i, alignment)
        if tensor.name in tensors:
            raise reader.fault(f"tensor {tensor.name} stands twice")
        tensors[tensor.name] = tensor
    data_start = -(-reader.position // alignment) * alignment
    return _with_spans(reader, tensors, data_start, file_size)


def _read_row(reader: FrontReader, index: int, alignment: int) -> StoredTensor:
    name = reader.text(f"the name of tensor {index}", MAX_NAME_BYTES)
    if not name.isprintable():
        raise reader.fault(f"tensor {name!r} has a name that cannot be printed")
    what = f"the table's row of tensor {name!r}"
    n_dimensions = reader.u32(what)
    if not 1 <= n_dimensions <= MAX_DIMENSIONS:
        raise reader.fault(f"tensor {name!r} has {n_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are known")
    shape = tuple(reader.u64(what) for _ in range(n_dimensions))[::-1]
    if not all(shape) or math.prod(shape) >= 1 << 48:
        raise reader.fault(f"tensor {name!r} has shape {list(shape)}: sizes above 0, and less than 2^48 in all, can be")
    type_id, offset = reader.u32(what), reader.u64(what)
    if offset % alignment:
        raise reader.fault(f"tensor {name!r} lies at byte {offset} of the data, which is no multiple of {alignment}")
    return StoredTensor(name, type_id, shape, offset, 0)


def _with_spans(
    reader: FrontReader, tensors: dict[str, StoredTensor], data_start: int, file_size: int
) -> dict[str, StoredTensor]:
    """The same tensors with their place in the file and the bytes there are for each."""
    ordered = sorted(tensors.values(), key=lambda tensor: tensor.offset)
    ends = [data_start + tensor.offset for tensor in ordered[1:]] + [file_size]
    placed = {}
    for tensor, end in zip(ordered, ends, strict=True):
        begin = data_start + tensor.offset
        if begin >= file_size:
            fault = f"begins at byte {begin}, the file has {file_size}: a copy cut short. Copy it again."
            raise reader.fault(f"tensor {tensor.name} {fault}")
        if begin == end:
            raise reader.fault(f"tensor {tensor.name} begins at byte {begin}, where another one begins too")
        placed[tensor.name] = replace(tensor, offset=begin, span=end - begin)
    first = ordered[0]
    if first.offset:
        raise reader.fault(f"tensor {first.name}, the first, leaves a hole of {first.offset} bytes before it")
    return {name: placed[name] for name in tensors}
