"""Figures of the last day on disk, in bounded space, with few writes.

A folder of segments. Each begins with a header that names its columns, then come records of one size: a CRC, the boot,
two clocks and a float32 a column, NaN where the figure is not known. Records are held in memory and appended in
batches, so that a memory card sees a write each few minutes; a kill loses those in memory. What is damaged or cut short
is skipped. The oldest segment goes when the newer ones hold all the time asked for, or the space is used up: counted in
records and bytes, never by a clock, which may jump. A disk that takes no more is said once and tried again.
"""

import json
import logging
import math
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebit.daemon.monitoring.timeline import Moment

log = logging.getLogger("edgebit.history")

MAGIC = b"EBHIST1\n"
SEGMENTS = 8  # that the space is divided into: so much of it is given up at once
SUFFIX = ".ebh"
PENDING_MAX = 240  # records held while the disk takes none
_LENGTH = struct.Struct("<I")
_CRC = struct.Struct("<I")
_HEADER_MAX = 65536


@dataclass(frozen=True, slots=True)
class Record:
    """The figures of one moment."""

    at: Moment
    values: Mapping[str, float | None]


class _Layout:
    """How records of the given columns lie in a segment."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._fields = struct.Struct(f"<16sdd{len(self.columns)}f")
        self.record_bytes = _CRC.size + self._fields.size
        names = json.dumps({"columns": self.columns}).encode()
        self.header = MAGIC + _LENGTH.pack(len(names)) + names + _CRC.pack(zlib.crc32(names))

    def pack(self, record: Record) -> bytes:
        values = (record.values.get(name) for name in self.columns)
        numbers = (math.nan if value is None else min(max(value, -3e38), 3e38) for value in values)
        at = record.at
        body = self._fields.pack(at.boot, at.monotonic, at.wall, *numbers)
        return _CRC.pack(zlib.crc32(body)) + body

    def unpack(self, data: bytes) -> Iterator[Record]:
        """Whole records of a segment; those whose sum is wrong are left out."""
        for start in range(len(self.header), len(data) - self.record_bytes + 1, self.record_bytes):
            body = data[start + _CRC.size : start + self.record_bytes]
            if zlib.crc32(body) != _CRC.unpack_from(data, start)[0]:
                continue
            boot, monotonic, wall, *numbers = self._fields.unpack(body)
            known = (None if math.isnan(number) else number for number in numbers)
            yield Record(Moment(boot, monotonic, wall), dict(zip(self.columns, known, strict=True)))

    def count(self, size: int) -> int:
        """Whole records of a segment of `size` bytes."""
        return max(0, size - len(self.header)) // self.record_bytes


class History:
    """Records of a folder, and those that are still to be written. One thread at a time."""

    def __init__(self, folder: Path, columns: Sequence[str], *, records: int, max_bytes: int, batch: int) -> None:
        """`records` are kept at least, while they fit into `max_bytes`; written are `batch` at once."""
        self.folder = folder
        self._layout = _Layout(columns)
        self._records = records
        self._max_bytes = max_bytes
        self._segment_bytes = max(min(max_bytes, records * self._layout.record_bytes) // SEGMENTS, 4096)
        self._batch = batch
        self._pending: deque[Record] = deque(maxlen=max(PENDING_MAX, batch))
        self._unwritten = 0  # records since the last try to write
        self.fault: str | None = None  # why the disk takes no more

    def add(self, record: Record) -> None:
        """Take a record; with the last one of a batch, all that wait are written."""
        self._pending.append(record)
        self._unwritten += 1
        if self._unwritten >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Write what waits. A disk that takes it not makes a fault, and the records wait on."""
        self._unwritten = 0
        if not self._pending:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room()
            self._append(b"".join(self._layout.pack(record) for record in self._pending))
        except OSError as error:
            if self.fault is None:
                log.warning("%s: the history is not written on: %s", self.folder, error)
            self.fault = f"the history is not written on: {error}"
            return
        self._pending.clear()
        if self.fault is not None:
            log.info("%s: the history is written again", self.folder)
        self.fault = None

    def read(self) -> Iterator[Record]:
        """All records from the oldest on, those not written yet too."""
        yield from read_records(self.folder)
        yield from list(self._pending)

    def _append(self, data: bytes) -> None:
        path = self._current()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(handle).st_size
            # A batch that was cut short by a kill or a full disk goes, so that records stand at their places.
            whole = self._layout.count(before) * self._layout.record_bytes + len(self._layout.header)
            start = 0 if before < len(self._layout.header) else whole
            data = data if start else self._layout.header + data
            try:
                os.ftruncate(handle, start)
                os.lseek(handle, start, os.SEEK_SET)
                while data:
                    data = data[os.write(handle, data) :]
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, start)
                raise
        finally:
            os.close(handle)

    def _current(self) -> Path:
        """The segment to append to: the newest, unless it is full or of other columns."""
        segments = _segments(self.folder)
        if not segments:
            return self.folder / f"{1:08d}{SUFFIX}"
        newest = segments[-1]
        header = _read_bytes(newest, len(self._layout.header))
        fits = header == self._layout.header and newest.stat().st_size < self._segment_bytes
        return newest if fits else self.folder / f"{int(newest.stem) + 1:08d}{SUFFIX}"

    def _make_room(self) -> None:
        """Drop the oldest segments that are not needed for the records asked for, or that there is no space for."""
        room = len(self._pending) * self._layout.record_bytes + len(self._layout.header)
        segments = [(path, path.stat().st_size) for path in _segments(self.folder)]
        total = sum(size for _, size in segments)
        records = sum(self._layout.count(size) for _, size in segments)
        for path, size in segments:
            records -= self._layout.count(size)
            if total + room <= self._max_bytes and records < self._records:
                return
            path.unlink()
            total -= size


def read_records(folder: Path) -> Iterator[Record]:
    """The records of a history's folder, from the oldest on; none where there is no history. Damaged ones are skipped.

    Raises OSError where the folder is there and cannot be read.
    """
    for path in _segments(folder):
        data = _read_bytes(path)
        columns = _columns(data)
        if columns is not None:
            yield from _Layout(columns).unpack(data)


def _segments(folder: Path) -> list[Path]:
    try:
        names = [path for path in folder.iterdir() if path.suffix == SUFFIX and path.stem.isdigit()]
    except FileNotFoundError:
        return []
    return sorted(names, key=lambda path: int(path.stem))


def _columns(data: bytes) -> list[str] | None:
    """The columns that a segment's header names; None where it is damaged or none."""
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    begin = len(MAGIC) + _LENGTH.size
    names = data[begin : begin + length]
    if length > _HEADER_MAX or len(data) < begin + length + _CRC.size:
        return None
    if zlib.crc32(names) != _CRC.unpack_from(data, begin + length)[0]:
        return None
    try:
        columns = json.loads(names)["columns"]
    except (ValueError, KeyError, TypeError):
        return None
    return columns if isinstance(columns, list) and all(isinstance(name, str) for name in columns) else None


def _read_bytes(path: Path, count: int = -1) -> bytes:
    """The first bytes of a file, or all; nothing where it has just been dropped."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError:
        return b""
