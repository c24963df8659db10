"""A zip archive whose entries are stored as they are, as PyTorch writes them: where each entry's bytes lie.

Nothing is ever inflated, so no entry can be larger than the file. Source: PKWARE's APPNOTE, sections 4.3.7 (local
header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (end records), 4.5.3 (sizes of 64 bits).
"""

import os
import struct
from dataclasses import dataclass
from typing import NoReturn

from edgebit.errors import CheckpointError

MAGIC = b"PK\x03\x04"
_DIRECTORY_MAX_BYTES = 16 << 20
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ENCRYPTED = 1  # bit of an entry's flags
_IN_64_BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """Where an entry's bytes lie in the file, and their CRC-32."""

    offset: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class _Listed:
    name: str
    header_offset: int
    size: int
    crc: int


def read_entries(fd: int, where: str) -> dict[str, StoredEntry]:
    """All entries by name, checked: stored, whole, inside the file, none over another.

    Raises CheckpointError that begins with `where` and names the entry at fault.
    """
    return _Archive(fd, where).entries()


class _Archive:
    def __init__(self, fd: int, where: str) -> None:
        self._fd, self._where = fd, where
        self._size = os.fstat(fd).st_size

    def entries(self) -> dict[str, StoredEntry]:
        directory_offset, directory_size, count = self._find_directory()
        listed = self._read_directory(directory_offset, directory_size, count)
        entries: dict[str, StoredEntry] = {}
        free_from, before = 0, ""
        for entry in sorted(listed, key=lambda entry: entry.header_offset):
            if entry.name in entries:
                self._refuse(f"entry {entry.name!r} stands twice")
            if entry.header_offset < free_from:
                self._refuse(f"entry {entry.name!r} lies over {before!r}")
            begin = self._data_offset(entry)
            free_from, before = begin + entry.size, entry.name
            if free_from > directory_offset:
                self._refuse(f"entry {entry.name!r} ends at byte {free_from}, behind the {directory_offset} of entries")
            entries[entry.name] = StoredEntry(begin, entry.size, entry.crc)
        return entries

    def _find_directory(self) -> tuple[int, int, int]:
        """Offset, size in bytes and number of entries of the central directory."""
        if self._size < _END.size:
            self._refuse(f"{self._size} bytes are no archive: a copy cut short. Copy it again.")
        tail = self._read(max(0, self._size - _END.size - _LOCATOR.size), min(self._size, _END.size + _LOCATOR.size))
        magic, disk, first_disk, here, count, size, offset, comment = _END.unpack(tail[-_END.size :])
        if magic != b"PK\x05\x06" or comment:
            self._refuse("the archive's directory is not at its end: a copy cut short. Copy it again.")
        end = self._size - _END.size
        if tail[:4] == b"PK\x06\x07" and len(tail) == _END.size + _LOCATOR.size:
            _, disk, end, _ = _LOCATOR.unpack(tail[: _LOCATOR.size])
            record = self._read(end, _END64.size)
            magic, _, _, _, disk, first_disk, here, count, size, offset = _END64.unpack(record)
            if magic != b"PK\x06\x06":
                self._refuse(f"there is no end record at byte {end}: damaged. Copy it again.")
        if disk or first_disk or here != count:
            self._refuse("is one of several parts of an archive, which PyTorch does not write")
        if offset + size != end:
            self._refuse(f"the directory ends at byte {offset + size}, its end record is at {end}: damaged")
        if size > _DIRECTORY_MAX_BYTES:
            self._refuse(f"a directory of {size} bytes; {_DIRECTORY_MAX_BYTES} are the limit")
        return offset, size, count

    def _read_directory(self, offset: int, size: int, count: int) -> list[_Listed]:
        data, position = self._read(offset, size), 0
        listed: list[_Listed] = []
        while position < size:
            if size - position < _CENTRAL.size or data[position : position + 4] != b"PK\x01\x02":
                self._refuse(f"the directory is damaged at byte {offset + position}")
            entry, position = self._read_listed(data, position)
            listed.append(entry)
        if len(listed) != count:
            self._refuse(f"the directory lists {len(listed)} entries, its end record says {count}")
        return listed

    def _read_listed(self, data: bytes, position: int) -> tuple[_Listed, int]:
        (_, _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment_size, _, _, _, header) = (
            _CENTRAL.unpack_from(data, position)
        )
        position += _CENTRAL.size
        end = position + name_size + extra_size + comment_size
        if end > len(data):
            self._refuse("the directory ends inside an entry")
        try:
            name = data[position : position + name_size].decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(f"an entry's name is no UTF-8: {data[position : position + name_size][:40]!r}")
        extra = data[position + name_size : position + name_size + extra_size]
        wide = iter(_sizes_of_64_bits(extra))
        sizes = [next(wide, -1) if value == _IN_64_BITS else value for value in (size, packed, header)]
        if -1 in sizes:
            self._refuse(f"entry {name!r} lacks its sizes of 64 bits")
        size, packed, header = sizes
        if method != 0 or size != packed or flags & _ENCRYPTED:
            self._refuse(
                f"entry {name!r} is compressed or encrypted ({packed} bytes for {size}); PyTorch stores plainly"
            )
        return _Listed(name, header, size, crc), end

    def _data_offset(self, entry: _Listed) -> int:
        """Where an entry's bytes begin: behind its local header, which must be for the same entry."""
        head = self._read(entry.header_offset, _LOCAL.size)
        magic, _, flags, method, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack(head)
        name = self._read(entry.header_offset + _LOCAL.size, name_size)
        if magic != MAGIC or name != entry.name.encode() or method != 0 or flags & _ENCRYPTED:
            self._refuse(f"entry {entry.name!r}: the header at byte {entry.header_offset} is not that of the directory")
        begin: int = entry.header_offset + _LOCAL.size + name_size + extra_size
        return begin

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset) if offset + size <= self._size else b""
        if len(data) != size:
            self._refuse(f"ends at byte {self._size}, inside what should be at {offset}: cut short. Copy it again.")
        return data

    def _refuse(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self._where}: {what}")


def _sizes_of_64_bits(extra: bytes) -> list[int]:
    """The values of the extra field with ID 1; none where there is no such field."""
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == 1:
            field = extra[position : position + size]
            return [value for (value,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8])]
        position += size
    return []
