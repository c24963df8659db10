"""What our supervisor hears of the daemon: the same words that systemd would, over a socket of its own.

Source: systemd, sd_notify(3) and sd_watchdog_enabled(3).
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

SILENCE_S = 60.0  # as WatchdogSec of the unit: with no word for so long the daemon hangs


class Heartbeat:
    """A socket that one daemon is started with. Where there can be none, the daemon watches itself as far as it can."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._heard_at: float | None = None  # None: it is not up yet
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            self._socket.setblocking(False)
        except OSError:  # a path longer than a socket may have, a read-only disk
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """For the daemon; nobody else's socket stays in it."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFY_", "WATCHDOG_"))}
        if self._socket is None:
            return ours
        return {**ours, "NOTIFY_SOCKET": str(self._path), "WATCHDOG_USEC": str(int(SILENCE_S * 1e6))}

    def is_late(self) -> bool:
        """Read what has come; whether the daemon was up and has been silent for too long. Call it each second or so."""
        if self._socket is None:
            return False
        now = self._clock()
        with contextlib.suppress(BlockingIOError):
            while word := self._socket.recv(4096):
                # One that stops says no more: it has as long again to answer what it has.
                if word in (b"READY=1", b"WATCHDOG=1", b"STOPPING=1"):
                    self._heard_at = now
        return self._heard_at is not None and now - self._heard_at > SILENCE_S
