"""Checkpoints' files are read by position and never mapped: a file that becomes shorter is an error, not a SIGBUS."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.lfs_pointer import LFS_POINTER, is_lfs_pointer
from edgebit.errors import CheckpointError


def open_to_read(path: Path) -> BinaryIO:
    """Open a file. Raises CheckpointError naming it where it cannot be read, or is a Git LFS pointer."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if is_lfs_pointer(file):
        file.close()
        raise CheckpointError(f"{path}: {LFS_POINTER}")
    return file


def read_at(file: BinaryIO, path: Path, offset: int, n_bytes: int, what: str) -> NDArray[np.uint8]:
    """Bytes `offset` to `offset + n_bytes` of the open file, without moving in it.

    Raises CheckpointError naming `path` and `what` is read where the file ends sooner.
    """
    out = np.empty(n_bytes, np.uint8)
    view, done = memoryview(out.data), 0
    while done < n_bytes:
        n = os.preadv(file.fileno(), [view[done:]], offset + done)
        if n == 0:
            raise CheckpointError(f"{path}: ends inside {what}: it became shorter while it was read")
        done += n
    return out


class CheckedFile(ABC):
    """A file that is open for reading by position, whose front a format has checked; what fails there closes it."""

    def __init__(self, path: Path) -> None:
        """Open and check `path`. Raises CheckpointError naming the file, and what in it is at fault."""
        self.path = path
        self._file = open_to_read(path)
        try:
            self._check()
        except BaseException:
            self._file.close()
            raise

    @abstractmethod
    def _check(self) -> None:
        """Read what stands before the weights, as the format has it."""

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
