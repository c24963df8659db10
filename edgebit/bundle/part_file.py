"""Files that are there whole or not at all: written beside their place as NAME.part, and renamed at the end.

Standard library only.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edgebit.errors import EdgebitError

_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)


def check_place(
    out: Path,
    error: type[EdgebitError],
    *,
    force: bool,
    example: str,
    inputs: Iterable[Path] = (),
    option: str = "--out",
) -> None:
    """Raise `error` where the file `out` cannot be made, or is there already and `force` is not given.

    example: a file's name, which is said where `out` is a folder
    inputs: what is read to make it; none of them is replaced, whatever name `out` has for it, even by `force`, nor
        written over as its part
    option: that `out` was given by
    """
    inputs = list(inputs)
    kind = _kind(out, error)
    if kind is not None and stat.S_ISDIR(kind):
        raise error(f"{out} is a folder. Give a file name: {option} {out / example}")
    check_regular(out, error)
    _check_no_input(out, error, inputs)
    check_part(out, error, inputs)
    if kind is not None and not force:
        raise error(f"{out} is there already. Give another name, or --force to replace it")
    if not out.parent.is_dir():
        raise error(f"the folder {out.parent} is not there. Make it: mkdir -p {out.parent}")


def _check_no_input(out: Path, error: type[EdgebitError], inputs: Iterable[Path]) -> None:
    """Raise `error` where `out` is one of the files or folders `inputs`, by whatever name."""
    if _is_one_of(out, inputs):
        raise error(f"{out} is what is read, and would be lost. Give another name")


def check_regular(out: Path, error: type[EdgebitError]) -> None:
    """Raise `error` where `out` is a folder, a device, a pipe: what a file must not be put in the place of."""
    kind = _kind(out, error)
    if kind is not None and not stat.S_ISREG(kind):
        raise error(f"{out} is no plain file, and would be replaced by one. Give another name")


def check_part(out: Path, error: type[EdgebitError], inputs: Iterable[Path] = ()) -> None:
    """Raise `error` where the part of `out` is one of `inputs`, or a link or whatever else a part never is."""
    part = _part_of(out)
    kind = _kind(part, error, follow=False)
    if kind is None:
        return
    if _is_one_of(part, inputs):
        raise error(f"{part} is read, and would be lost: {out.name} is made there. Give another name than {out}")
    if not stat.S_ISREG(kind):
        raise error(f"{part} is no plain file, and {out.name} is made there. Give another name, or take it away")


def _part_of(out: Path) -> Path:
    return out.with_name(out.name + ".part")


def _is_one_of(path: Path, inputs: Iterable[Path]) -> bool:
    return path.exists() and any(each.exists() and path.samefile(each) for each in inputs)


def _kind(out: Path, error: type[EdgebitError], *, follow: bool = True) -> int | None:
    """The mode of what is at `out`, or of what it is a link to (`follow`); None: nothing."""
    try:
        return out.stat(follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise error(f"{out}: cannot be written: {fault.strerror}") from fault


@contextmanager
def faults_named(path: Path, error: type[EdgebitError]) -> Iterator[None]:
    """A full disk and the like become an `error` with the file's name."""
    try:
        yield
    except OSError as fault:
        raise error(f"{path}: cannot be written: {fault.strerror}") from fault


class PartFile:
    """A file in the making, at OUT.part, which becomes OUT on commit() and is removed in any other case.

    Attributes: path, where it is made; file, which it is written to. What write() and commit() meet on the disk is
    raised as the `error` given; what goes to `file` itself may be put in a block of faults().
    """

    def __init__(self, out: Path, error: type[EdgebitError]) -> None:
        """Raises `error` where it cannot be made, or something stands there that is no plain file."""
        check_regular(out, error)
        check_part(out, error)
        self.path = _part_of(out)
        self._out, self._error = out, error
        self._committed = False
        with faults_named(out, error):
            self.file: IO[bytes] = os.fdopen(os.open(self.path, _OPEN_FLAGS, 0o666), "w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what is committed is on the disk, the rest goes: an earlier fault is the one to tell
            self.file.close()
        if not self._committed:
            self.path.unlink(missing_ok=True)

    def faults(self) -> AbstractContextManager[None]:
        """A block whose OSErrors are faults of this file."""
        return faults_named(self.path, self._error)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        with self.faults():
            self.file.write(data)

    def commit(self) -> None:
        """Bring the file to the disk and give it its name."""
        with self.faults():
            self.file.flush()
            os.fsync(self.file.fileno())
            self.path.replace(self._out)
            self._committed = True
            folder = os.open(self._out.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
