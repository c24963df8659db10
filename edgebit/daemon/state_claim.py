"""One daemon at a time on a state folder: two would write over each other's journal and count one connection number."""

import contextlib
import fcntl
import os
from pathlib import Path

from edgebit.errors import ConfigError

NAME = "daemon.lock"


class StateClaim:
    """Holds the folder until close(), or until the process has ended in whatever way."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where another daemon has the folder."""
        self._handle: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except (
            OSError
        ):  # a disk that fails silences nobody, and a folder that was named wrongly is said by who needs it
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            os.close(handle)
            holder = f"another daemon, process {pid}," if pid.isdecimal() else "another daemon"
            raise ConfigError(
                f"{folder} is in use by {holder}: end that one, or give this one a folder and a name of its own "
                "(--state, [device] name)"
            ) from None
        except OSError:  # a file system without locks
            os.close(handle)
            return
        self._handle = handle
        with contextlib.suppress(OSError):  # a full disk: then nobody is told who has it
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let another one have it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
