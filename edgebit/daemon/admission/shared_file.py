"""A record file that several threads append to, and that one sync serves for all of them."""

import errno
import threading
from collections.abc import Sequence
from pathlib import Path

from edgebit.daemon.admission.record_file import RecordFile, Span


class SharedFile:
    """The file of `path`, once it was opened or replaced. One thread at a time, but sync() at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sync_lock = threading.Lock()
        self._file: RecordFile | None = None
        self._appended = self._synced = 0  # records

    @property
    def usable(self) -> bool:
        """Whether it can be appended to: not after a failure that leaves unknown what is on the disk."""
        return self._file is not None and self._file.trusted

    @property
    def end(self) -> int:
        """Bytes up to the end of the last record."""
        return 0 if self._file is None else self._file.end

    def open(self) -> tuple[list[tuple[Span, bytes]], int]:
        """Its whole records, and how many damaged bytes behind them were cut off. Raises OSError."""
        self._file, records, damaged = RecordFile.open(self.path)
        self.path.chmod(0o600)
        return records, damaged

    def append(self, body: bytes, *, beside: int) -> Span:
        """Write a record; refused where the disk has no room for it and `beside` bytes more. Raises OSError."""
        span = self._usable().append(body, beside=beside)
        self._appended += 1
        return span

    def append_into_reserve(self, body: bytes) -> Span:
        """Write a record into the room that was kept free before. Raises OSError."""
        span = self._usable().append_into_reserve(body)
        self._appended += 1
        return span

    def read(self, span: Span) -> bytes:
        """A record's body. Raises OSError where the disk has lost it."""
        if self._file is None:
            raise OSError(errno.EIO, "there is no file", str(self.path))
        return self._file.read(span)

    def sync(self) -> bool:
        """Have on the disk all that was appended before; False where it is not usable. Raises OSError."""
        wanted = self._appended
        with self._sync_lock:
            if self._synced >= wanted:
                return True
            if self._file is None or not self._file.trusted:
                return False
            mark = self._appended
            self._file.sync()
            self._synced = mark
            return True

    def replace(self, bodies: Sequence[bytes], *, beside: int) -> list[Span]:
        """Put another file of these records in its place, on the disk when this returns, with `beside` bytes more.

        Raises OSError; this one stays then.
        """
        with self._sync_lock:
            file, spans = RecordFile.write(self.path, bodies, beside=beside)
            if self._file is not None:
                self._file.close()
            self._file, self._synced = file, self._appended
            return spans

    def close(self) -> None:
        """Give the file back."""
        with self._sync_lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def _usable(self) -> RecordFile:
        if self._file is None or not self._file.trusted:
            raise OSError(errno.EIO, "what is on the disk is not known", str(self.path))
        return self._file
