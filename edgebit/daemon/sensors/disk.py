"""Room on the disk that holds the daemon's state."""

import os
from collections.abc import Iterator
from pathlib import Path

from edgebit.daemon.sensors.reading import Reading, Unreadable, take


class Disk:
    """disk_free."""

    every_s = 10.0

    def __init__(self, folder: Path) -> None:
        """`folder` need not be there yet: its disk is that of the folder above it."""
        self._folder = folder

    def read(self) -> Iterator[Reading]:
        """disk_free, in MiB that an ordinary user may fill."""
        yield take("disk_free", "MiB", f"statvfs {self._folder}", self._mib)

    def _mib(self) -> float:
        for folder in (self._folder, *self._folder.absolute().parents):
            try:
                found = os.statvfs(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Unreadable(f"{folder}: {error.strerror}") from error
            return round(found.f_bavail * found.f_frsize / (1 << 20), 1)
        raise Unreadable(f"{self._folder}: no folder above it is there")
