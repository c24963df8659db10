"""A small text file that is read again when it has changed, and whose last good content stays in use until then."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from edgebit.errors import ConfigError

log = logging.getLogger("edgebit.config")

Content = TypeVar("Content")


class WatchedFile(Generic[Content]):
    """`path` as `parse(text, name)` understands it; parse raises ConfigError."""

    def __init__(self, path: Path, parse: Callable[[str, str], Content], max_bytes: int) -> None:
        """Raises ConfigError where the file cannot be read or is wrong: there is nothing to fall back on yet."""
        self._path = path
        self._parse = parse
        self._max_bytes = max_bytes
        self._seen = self._mark()
        self.content = self._read()
        self.fault: str | None = None  # why the file as it is now is not used

    def reload(self) -> bool:
        """Read the file again if it has changed; whether new content is in use now.

        A file that is gone or wrong is said so once in the log and as `fault`, and what was read before stays.
        """
        mark = self._mark()
        if mark == self._seen:
            return False
        self._seen = mark
        try:
            self.content = self._read()
        except ConfigError as error:
            self.fault = str(error)
            log.error("%s. What was read before stays in use", error)
            return False
        self.fault = None
        log.info("%s was read anew", self._path)
        return True

    def _mark(self) -> tuple[int, ...]:
        """What differs when the file was written or replaced."""
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_ctime_ns

    def _read(self) -> Content:
        try:
            with self._path.open("rb") as file:
                data = file.read(self._max_bytes + 1)
            text = data.decode("utf-8")
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self._path} is not UTF-8 at byte {error.start}") from error
        if len(data) > self._max_bytes:
            raise ConfigError(f"{self._path} has more than {self._max_bytes} bytes")
        try:
            return self._parse(text, str(self._path))
        except RecursionError as error:  # of a parser that calls itself for each bracket
            raise ConfigError(f"{self._path} nests brackets too deep") from error
