"""model.onnx.data: the bytes of all weights, one tensor after the other, written as they come."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.part_file import faults_named
from edgebit.errors import ExportError

_ALIGNMENT = 64  # a cache line: kernels read weights in place
_PAGE = 4096  # large tensors begin a page, so that each can be mapped and given back by itself
_LARGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tensor lies, in bytes."""

    offset: int
    size: int


class ExternalData:
    """The file in the making, and its SHA-256. Raises ExportError where the disk does not take it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._sum = hashlib.sha256()
        with faults_named(path, ExportError):
            self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with faults_named(self.path, ExportError):
            self._file.close()

    @property
    def sha256(self) -> str:
        """Of what has been written, in hex."""
        return self._sum.hexdigest()

    def write(self, chunks: Iterable[NDArray[Any]], size: int) -> Span:
        """Append a tensor of `size` bytes; only one piece of it is in memory at a time."""
        self._append(np.zeros(-self.size % (_PAGE if size >= _LARGE else _ALIGNMENT), np.uint8))
        span = Span(self.size, size)
        for chunk in chunks:
            self._append(np.ascontiguousarray(chunk))
        assert self.size == span.offset + size, f"{self.size - span.offset} bytes for {size}"
        return span

    def _append(self, array: NDArray[Any]) -> None:
        content = array.reshape(-1).view(np.uint8).data
        with faults_named(self.path, ExportError):
            self._file.write(content)
        self._sum.update(content)
        self.size += array.nbytes
