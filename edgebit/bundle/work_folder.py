"""Folders for what is made on the way to a file or folder: beside it, hidden, and gone at the end.

A process that is killed leaves its own behind; the next that makes the same finds it by its name and by a file in it
that says whose it is, and that nobody works in it by its lock, which ends with the process. Standard library only.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = ".edgebit-work"
_SAYS = b"A folder that edgebit works in. Where no edgebit runs, it was killed; the next one here clears it.\n"


@contextmanager
def work_folder(out: Path, is_kept: Callable[[Path], bool] = lambda leftover: False) -> Iterator[Path]:
    """A folder on the disk of `out`, removed with all in it at the end. Raises OSError where none can be made there.

    is_kept: whether what a killed process left stays until the block has ended well, and `out` is there anew
    """
    _remove_leftovers(out, is_kept)
    folder, lock = _make(out)
    try:
        yield folder
        with suppress(OSError):
            _remove_leftovers(out, lambda leftover: False)
    finally:
        _remove(folder)
        os.close(lock)


def leftovers(out: Path) -> Iterator[Path]:
    """The work folders of processes that were killed, each locked until the next is asked for.

    One without the mark is nobody's while it is empty, and goes; with anything in it, it is another's, and stays.
    """
    ours = re.compile(rf"\.{re.escape(out.name)}\.[a-z0-9_]{{8}}")  # as mkdtemp() names them
    with os.scandir(out.parent) as entries:
        found = [entry.path for entry in entries if ours.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]
    for folder in map(Path, sorted(found)):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if os.fstat(lock).st_uid != os.geteuid() or not _locks(lock):
                continue
            if (folder / MARK).is_file():
                yield folder
            else:
                with suppress(OSError):
                    folder.rmdir()
        finally:
            os.close(lock)


def _remove_leftovers(out: Path, is_kept: Callable[[Path], bool]) -> None:
    for folder in leftovers(out):
        if not is_kept(folder):
            _remove(folder)


def _make(out: Path) -> tuple[Path, int]:
    """A new folder and what holds its lock. Another process may take it for abandoned until it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _locks(lock) is not False and folder.is_dir():
            try:
                (folder / MARK).write_bytes(_SAYS)
            except BaseException:
                _remove(folder)
                os.close(lock)
                raise
            return folder, lock
        os.close(lock)


def _remove(folder: Path) -> None:
    """With all in it, the mark last: killed on the way, it is still known as ours."""
    with suppress(OSError):
        for each in folder.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            elif each.name != MARK:
                each.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _locks(folder: int) -> bool | None:
    """Whether the lock of an open folder was free, and is ours now; None: that disk has no locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
