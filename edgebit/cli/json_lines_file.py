"""The file of --per-token and --per-question: a JSON object a line."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from edgebit.bundle.part_file import PartFile, faults_named
from edgebit.cli.out_file import check_out_file
from edgebit.errors import OutputError


@contextlib.contextmanager
def json_lines(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What writes an object a line to `path`; nothing where that is None.

    A file is there whole or not at all; a pipe or device gets what comes as it comes.
    """
    if path is None:
        yield lambda row: None
    elif _is_stream(path):
        yield from _stream_lines(path)
    else:
        with PartFile(path, OutputError) as part:
            yield lambda row: part.write(_line(row))
            part.commit()


def _stream_lines(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    with faults_named(path, OutputError):
        file = path.open("wb")

    def write(row: dict[str, Any]) -> None:
        with faults_named(path, OutputError):
            file.write(_line(row))

    try:
        yield write
    finally:
        with faults_named(path, OutputError):
            file.close()


def check_lines_file(path: Path | None, *, option: str, force: bool, inputs: Iterable[Path]) -> None:
    """Raise OutputError where json_lines() may not write to `path`, which `option` gave: see check_place()."""
    if path is not None and not _is_stream(path):
        check_out_file(path, force=force, example="NAME.jsonl", inputs=inputs, option=option)


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
