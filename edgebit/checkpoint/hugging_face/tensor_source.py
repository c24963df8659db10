"""Tensors by name, and their values in float32, a few rows at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.checkpoint import CHUNK_BYTES
from edgebit.checkpoint.hugging_face.safetensors_file import TensorInfo, as_float32
from edgebit.errors import CheckpointError

FLOAT_DTYPES = ("F32", "BF16", "F16")


class TensorSource(Protocol):
    """Tensors by name, from however many files."""

    format: Literal["safetensors", "pytorch"]

    def info(self, name: str) -> TensorInfo: ...
    def file_of(self, name: str) -> Path: ...
    def read(self, name: str, first_row: int = 0, n_rows: int | None = None) -> NDArray[Any]: ...
    def names(self) -> set[str]: ...
    def files(self) -> list[Path]: ...
    def close(self) -> None: ...


def describe_place(tensors: TensorSource, name: str) -> str:
    """File and tensor, for words."""
    return f"{tensors.file_of(name)}: tensor {name}"


def float_vector(tensors: TensorSource, name: str) -> NDArray[np.float32]:
    """The values of a vector. Raises CheckpointError on NaN or infinity."""
    values = as_float32(tensors.read(name), tensors.info(name).dtype)
    if not np.isfinite(values).all():
        at = int(np.nonzero(~np.isfinite(values))[0][0])
        raise CheckpointError(f"{describe_place(tensors, name)} holds {values[at]} at {at}")
    return values


def float_rows(
    tensors: TensorSource, name: str, first_row: int, n_rows: int
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Rows of a matrix, as they are stored and as float32. Raises CheckpointError on NaN or infinity."""
    stored = tensors.read(name, first_row, n_rows)
    values = as_float32(stored, tensors.info(name).dtype)
    if not np.isfinite(values).all():
        row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(values)))
        place = f"row {first_row + row}, column {column}"
        raise CheckpointError(f"{describe_place(tensors, name)} holds {values[row, column]} at {place}")
    return stored, values


def float_chunks(tensors: TensorSource, name: str) -> Iterator[tuple[int, NDArray[Any], NDArray[np.float32]]]:
    """All rows of a matrix in chunks: the number of the first, and what float_rows() gives."""
    for first, n_rows in _row_chunks(tensors, name):
        yield first, *float_rows(tensors, name, first, n_rows)


def stored_chunks(tensors: TensorSource, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """All rows of a matrix in chunks: the number of the first, and the rows as they are stored, whatever they hold."""
    for first, n_rows in _row_chunks(tensors, name):
        yield first, tensors.read(name, first, n_rows)


def _row_chunks(tensors: TensorSource, name: str) -> Iterator[tuple[int, int]]:
    """(first row, rows); of the last chunk there may be fewer."""
    info = tensors.info(name)
    step = max(1, CHUNK_BYTES * info.shape[0] // max(info.size, 1))
    for first in range(0, info.shape[0], step):
        yield first, step
