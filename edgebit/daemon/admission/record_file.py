"""Records in a file, one after another: what was written whole is read back whole, whatever became of the rest.

The file begins with HEADER. A record is the length of its body and a CRC-32 of that length and the body, both little
endian in four bytes, then the body. A length of 0 is the end: room on the disk is laid in ahead, as zeros.
"""

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HEADER = b"EBJRNL1\n"
HEAD = struct.Struct("<II")
STEP_BYTES = 1 << 16  # room is laid in by so much
NO_FALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a record's body lies."""

    offset: int
    size: int


def framed(body: bytes) -> bytes:
    """A body as it stands in the file."""
    size = struct.pack("<I", len(body))
    return size + struct.pack("<I", zlib.crc32(body, zlib.crc32(size))) + body


def whole_records(content: bytes) -> Iterator[Span]:
    """The bodies from the beginning up to the first record that is cut short or damaged. Raises nothing."""
    if content[: len(HEADER)] != HEADER:
        return
    at = len(HEADER)
    while at + HEAD.size <= len(content):
        size, checksum = HEAD.unpack_from(content, at)
        span = Span(at + HEAD.size, size)
        end = span.offset + size
        if not size or end > len(content):
            return
        body = memoryview(content)[span.offset : end]
        if zlib.crc32(body, zlib.crc32(content[at : at + 4])) != checksum:
            return
        yield span
        at = end


class RecordFile:
    """An open file of records. One thread at a time, but sync() at any time. All methods raise OSError."""

    def __init__(self, path: Path, handle: int, end: int, laid_in: int) -> None:
        self.path = path
        self.end = end  # of the last whole record
        self.trusted = True  # False after a failure that leaves unknown what is on the disk: write another file then
        self._handle = handle
        self._laid_in = laid_in  # up to here the disk has room for the file

    @classmethod
    def open(cls, path: Path) -> tuple[Self, list[tuple[Span, bytes]], int]:
        """The file, its whole records, and how many bytes behind them were damaged and have been cut off."""
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            content = _read_all(handle)
            spans = list(whole_records(content))
            end = spans[-1].offset + spans[-1].size if spans else len(HEADER)
            readable = content.startswith(HEADER)
            damaged = len(content[end if readable else 0 :].rstrip(b"\0"))
            if damaged or not readable:
                os.ftruncate(handle, end if readable else 0)
                _write_all(handle, HEADER, 0)
                os.fsync(handle)
                content = content[:end]
        except BaseException:
            os.close(handle)
            raise
        records = [(span, content[span.offset : span.offset + span.size]) for span in spans]
        return cls(path, handle, end, max(len(content), end)), records, damaged

    @classmethod
    def write(cls, path: Path, bodies: Iterable[bytes], *, beside: int = 0) -> tuple[Self, list[Span]]:
        """Put a file of these records in the place of `path`, for good when this returns. A failure leaves the old.

        beside: bytes of the disk to keep free for what will be appended
        """
        part = path.with_name(path.name + ".part")
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            file = cls(path, handle, len(HEADER), len(HEADER))
            _write_all(handle, HEADER, 0)
            spans = [file.append(body) for body in bodies]
            if beside:
                file._lay_in(file.end + beside)
            os.fsync(handle)
            part.replace(path)
            sync_folder(path.parent)
        except BaseException:
            os.close(handle)
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        return file, spans

    def append(self, body: bytes, *, beside: int = 0) -> Span:
        """Write a record behind the last; refused where the disk has no room for it and `beside` bytes more."""
        self._lay_in(self.end + HEAD.size + len(body) + beside)
        return self._put(body)

    def append_into_reserve(self, body: bytes) -> Span:
        """Write a record behind the last, into the room laid in for it before."""
        with contextlib.suppress(OSError):
            self._lay_in(self.end + HEAD.size + len(body))
        return self._put(body)

    def sync(self) -> None:
        """Have all that was appended on the disk."""
        try:
            os.fdatasync(self._handle)
        except OSError:
            # The kernel has dropped what it could not write: a second try would find nothing amiss.
            self.trusted = False
            raise

    def read(self, span: Span) -> bytes:
        """A record's body. Raises OSError where it is not what was written."""
        content = os.pread(self._handle, HEAD.size + span.size, span.offset - HEAD.size)
        body = content[HEAD.size :]
        if framed(body) != content or len(body) != span.size:
            raise OSError(errno.EIO, "a record is damaged", str(self.path))
        return body

    def close(self) -> None:
        """Give the file back."""
        os.close(self._handle)

    def _put(self, body: bytes) -> Span:
        data = framed(body)
        try:
            _write_all(self._handle, data, self.end)
        except OSError:
            self.trusted = False
            os.ftruncate(self._handle, self.end)
            self._laid_in = self.end
            self.trusted = True
            raise
        span = Span(self.end + HEAD.size, len(body))
        self.end += len(data)
        self._laid_in = max(self._laid_in, self.end)
        return span

    def _lay_in(self, size: int) -> None:
        if size <= self._laid_in:
            return
        target = -(-size // STEP_BYTES) * STEP_BYTES
        try:
            _reserve(self._handle, self._laid_in, target)
        except OSError:
            os.ftruncate(self._handle, max(self._laid_in, self.end))
            raise
        self._laid_in = target


def sync_folder(folder: Path) -> None:
    """Have a folder's new names on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reserve(handle: int, begin: int, end: int) -> None:
    try:
        os.posix_fallocate(handle, begin, end - begin)
    except OSError as error:
        if error.errno not in NO_FALLOCATE:
            raise
        _write_all(handle, bytes(end - begin), begin)


def _read_all(handle: int) -> bytes:
    parts = []
    at = 0
    while part := os.pread(handle, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _write_all(handle: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(handle, left, at)
        left, at = left[written:], at + written
