"""Folders for what is made on the way to a file or folder: beside it, hidden, and gone at the end.

A process that is killed leaves its own behind; the next that makes the same finds it by its name, and that nobody works
in it by its lock, which ends with the process. Standard library only.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """A folder on the disk of `out`, removed with all in it at the end. Raises OSError where none can be made there."""
    _remove_abandoned(out)
    folder, lock = _make(out)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make(out: Path) -> tuple[Path, int]:
    """A new folder and what holds its lock. Another process may take it for abandoned until it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _locks(lock) is not False and folder.is_dir():
            return folder, lock
        os.close(lock)


def _remove_abandoned(out: Path) -> None:
    ours = re.compile(rf"\.{re.escape(out.name)}\.[a-z0-9_]{{8}}")  # as mkdtemp() names them
    with os.scandir(out.parent) as entries:
        found = [entry.path for entry in entries if ours.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]
    for folder in found:
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid() and _locks(lock):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _locks(folder: int) -> bool | None:
    """Whether the lock of an open folder was free, and is ours now; None: that disk has no locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
