"""A number for each connection to the broker, kept over restarts: it tells an old will from a new one."""

import errno
import logging
import os
from pathlib import Path

from edgebit.errors import ConfigError

log = logging.getLogger("edgebit.mqtt")

# A disk that is full or, after an error, read-only makes nobody mute; all else is a folder that was named wrongly.
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class ConnectionCounter:
    """The number in `path`; next() counts it up and has it on the disk before it is used."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the folder cannot be written, unless that is the disk's fault."""
        self._path = path
        self.value = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.value = self._read()
            self._write(self.value)
        except OSError as error:
            if error.errno in _DISK_FAULTS:
                log.warning("%s cannot be written, connections are counted in memory: %s", path.parent, error)
                return
            raise ConfigError(f"{path.parent} cannot be written, the daemon keeps its state there: {error}") from error

    def next(self) -> int:
        """The next number. A disk that fails now does not stop the daemon: it counts on in memory."""
        self.value += 1
        try:
            self._write(self.value)
        except OSError as error:
            log.warning("connection number %d could not be saved to %s: %s", self.value, self._path, error)
        return self.value

    def _read(self) -> int:
        try:
            return int(self._path.read_text())
        except FileNotFoundError:
            return 0
        except ValueError:
            log.warning("%s is damaged; counting on from its time", self._path)
            return int(self._path.stat().st_mtime)  # above any number that was counted one by one

    def _write(self, value: int) -> None:
        part = self._path.with_name(self._path.name + ".part")
        with part.open("w") as file:
            file.write(f"{value}\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
