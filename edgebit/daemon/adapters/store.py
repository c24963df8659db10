"""The files of adapters in the state folder: NAME@SHA256, so that a damaged one is known by its own name.

A file is there whole or not at all; of two of one name, which a power cut may leave, the newer one counts.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgebit.bundle.part_file import PartFile
from edgebit.daemon.admission.job_store import refusal_of
from edgebit.errors import EngineError

log = logging.getLogger("edgebit.adapters")

STORED = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@(?P<sha256>[0-9a-f]{64})")
PART, DAMAGED = ".part", ".damaged"


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """A file that is what its name says."""

    name: str
    sha256: str
    data: bytes


class AdapterStore:
    """One thread at a time."""

    def __init__(self, folder: Path) -> None:
        """The folder is made when it is needed."""
        self._folder = folder

    def read(self) -> list[StoredAdapter]:
        """All that is there, by name. What is damaged is put aside, and the log says so; what was half made goes.

        A disk that lets nothing be read or taken away costs adapters, never more: the log says so.
        """
        try:
            for path in sorted(self._folder.glob(f"*@*{PART}")):
                _discard(path)
            files = sorted(self._files(), key=lambda path: path.stat().st_mtime_ns)
        except OSError as error:
            log.error("adapters in %s cannot be read: %s", self._folder, error.strerror)
            return []
        found: dict[str, StoredAdapter] = {}
        for path in files:
            stored = self._read(path)
            if stored is not None:
                if (older := found.get(stored.name)) is not None:
                    _discard(self._path(older.name, older.sha256))
                found[stored.name] = stored
        return [found[name] for name in sorted(found)]

    def put(self, name: str, sha256: str, data: bytes) -> None:
        """Keep a file, in the place of the one of that name. Raises Refusal, 503, where the disk does not take it."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with PartFile(self._path(name, sha256), EngineError) as part:
                part.write(data)
                part.commit()
            self._unlink([path for path in self._of(name) if path != self._path(name, sha256)])
        except (OSError, EngineError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            raise refusal_of(cause if isinstance(cause, OSError) else OSError(str(error))) from error

    def remove(self, name: str) -> None:
        """Forget the file of that name. Raises Refusal, 503, where the disk does not let it go."""
        try:
            self._unlink(self._of(name))
        except OSError as error:
            raise refusal_of(error) from error

    def _unlink(self, paths: Iterable[Path]) -> None:
        """Take files away for good: without the sync a power cut brings them back."""
        gone = list(paths)
        for path in gone:
            path.unlink(missing_ok=True)
        if gone:
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _read(self, path: Path) -> StoredAdapter | None:
        about = STORED.fullmatch(path.name)
        assert about is not None
        try:
            data = path.read_bytes()
        except OSError as error:
            log.error("adapter %s cannot be read: %s", path, error.strerror)
            return None
        if hashlib.sha256(data).hexdigest() == about["sha256"]:
            return StoredAdapter(about["name"], about["sha256"], data)
        aside = path.with_name(path.name + DAMAGED)
        log.error("adapter %s is damaged: its content is not that of its sum. It is put aside as %s", path, aside.name)
        try:
            path.replace(aside)
        except OSError as error:
            log.error("adapter %s cannot be put aside: %s", path, error.strerror)
        return None

    def _files(self) -> list[Path]:
        return [path for path in self._folder.glob("*") if STORED.fullmatch(path.name) and path.is_file()]

    def _of(self, name: str) -> list[Path]:
        return [path for path in self._files() if path.name.partition("@")[0] == name]

    def _path(self, name: str, sha256: str) -> Path:
        return self._folder / f"{name}@{sha256}"


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.error("%s cannot be removed: %s", path, error.strerror)
