"""Files cut into records, one at a time: lines of JSON Lines, documents of plain text. Any byte may be in a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from edgebit.errors import TrainError
from edgebit.train.data.examples import RecordError
from edgebit.train.data.source_files import SourceFile

RECORD_MAX = 16 << 20  # bytes
Parting = Literal["blank-lines", "files"]
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """A record's bytes in its file."""

    line: int  # from 1 on: where it begins
    offset: int
    size: int
    data: bytes | None  # None: it has more than RECORD_MAX bytes


def cut(file: SourceFile, parting: Parting) -> Iterator[Record]:
    """The records of a file, without those that are empty. Raises TrainError where it cannot be read."""
    try:
        with file.path.open("rb") as opened:
            yield from _lines(opened) if file.kind == "lines" else _documents(opened, parting)
    except OSError as error:
        raise TrainError(f"{file.path}: cannot be read: {error.strerror}") from error


def decoded(record: Record) -> str:
    """The record's text. Raises RecordError where it is too long or no UTF-8 text."""
    if record.data is None:
        raise RecordError("too long", f"a record has more than {RECORD_MAX >> 20} MiB. Cut it into several")
    if b"\0" in record.data:
        raise RecordError("NUL byte", "there is a NUL byte: no text, or UTF-16. Save the file as UTF-8")
    try:
        return record.data.decode()
    except UnicodeDecodeError as error:
        byte = record.data[error.start]
        raise RecordError(
            "not UTF-8", f"byte {error.start + 1} of the record is 0x{byte:02x}, which is no UTF-8. Save it as UTF-8"
        ) from None


def _lines(file: BinaryIO) -> Iterator[Record]:
    for number, offset, size, line in _raw_lines(file):
        if line is None or line.strip():
            yield Record(number, offset, size, line)


def _documents(file: BinaryIO, parting: Parting) -> Iterator[Record]:
    first = start = total = 0
    parts: list[bytes] = []
    for number, offset, size, line in _raw_lines(file):
        if parting == "blank-lines" and line is not None and not line.strip():
            if total:
                yield _document(first, start, total, parts)
            total = 0
            continue
        if not total:
            if line is not None and not line.strip():
                continue
            first, start, parts = number, offset, []
        total += size
        if line is not None and total <= RECORD_MAX:
            parts.append(line)
    if total:
        yield _document(first, start, total, parts)


def _document(first: int, start: int, size: int, parts: list[bytes]) -> Record:
    return Record(first, start, size, b"".join(parts) if size <= RECORD_MAX else None)


def _raw_lines(file: BinaryIO) -> Iterator[tuple[int, int, int, bytes | None]]:
    """Number, offset, size and bytes of each line with its end; a byte order mark at the front is left out."""
    offset = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
    file.seek(offset)
    number = 0
    while line := file.readline(RECORD_MAX + 1):
        number += 1
        size = len(line)
        if size > RECORD_MAX:
            end = line
            while end and not end.endswith(b"\n"):
                end = file.readline(RECORD_MAX)
                size += len(end)
        yield number, offset, size, line if size <= RECORD_MAX else None
        offset += size
