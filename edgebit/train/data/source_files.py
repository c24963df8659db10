"""The files that training data is read from, by the paths that somebody gave."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from edgebit.bundle.lfs_pointer import LFS_POINTER, is_lfs_pointer
from edgebit.errors import TrainError

_KINDS: dict[str, Literal["lines", "text"]] = {
    ".jsonl": "lines", ".ndjson": "lines", ".txt": "text", ".text": "text", ".md": "text",
}  # fmt: skip
_ABOUT_DATA = re.compile("readme|licen[cs]e|copying|notice|citation", re.IGNORECASE)  # what a name begins with
_KNOWN = "JSON Lines (.jsonl, .ndjson) and plain text (.txt, .text, .md)"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of data."""

    path: Path
    kind: Literal["lines", "text"]  # a JSON object a line, or plain text
    size: int  # bytes


def find_files(paths: Sequence[Path]) -> tuple[list[SourceFile], list[Path]]:
    """The files at `paths` and in the folders there, by name; and those in folders that are not read.

    Files of another kind are not, nor those that tell about data, such as README.md and LICENSE.txt.

    Raises TrainError where a path is not there or of another kind, or a folder has no data at all.
    """
    found: dict[Path, SourceFile] = {}
    others: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list(_walk(path))
            data = [file for file in inside if _is_data(file)]
            others += [file for file in inside if not _is_data(file)]
            if not data:
                raise TrainError(f"{path}: the folder has no data: {_KNOWN} are read")
        else:
            data = [path]
        for file in data:
            found.setdefault(file.resolve(), _source_file(file))
    return list(found.values()), others


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _is_data(file: Path) -> bool:
    return file.suffix.lower() in _KINDS and not _ABOUT_DATA.match(file.name)


def _unreadable(error: OSError) -> NoReturn:
    raise TrainError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _source_file(path: Path) -> SourceFile:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TrainError(f"{path}: data is read more than once, and this is no regular file. Write it to one first")
        with path.open("rb") as file:
            if is_lfs_pointer(file):
                raise TrainError(f"{path} {LFS_POINTER}")
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror}") from error
    if path.suffix.lower() == ".json":
        raise TrainError(
            f"{path}: one JSON value is not read, JSON Lines are: an object a line. "
            f"For an array: jq -c '.[]' {path} > {path.with_suffix('.jsonl')}"
        )
    if path.suffix.lower() not in _KINDS:
        raise TrainError(f"{path}: what the file holds is told by its name, and {_KNOWN} are read. Rename it")
    if status.st_size == 0:
        raise TrainError(f"{path}: the file is empty")
    return SourceFile(path, _KINDS[path.suffix.lower()], status.st_size)
