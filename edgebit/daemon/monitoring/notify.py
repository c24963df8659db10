"""Words to the service manager over its socket, where there is one: READY=1, STATUS=, WATCHDOG=1, STOPPING=1.

Source: systemd, sd_notify(3) and sd_watchdog_enabled(3).
"""

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger("edgebit.notify")

STATUS_MAX = 200


class Notifier:
    """The socket that the service manager named, and how often it wants to hear that all goes on."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address` is a path, or begins with @ for an abstract one; empty: nobody listens."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s if address else None
        self._status = ""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> "Notifier":
        """As NOTIFY_SOCKET and WATCHDOG_USEC say; they leave the environment, since they are not for our children."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        watchdog_s = int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) and ours else None
        return cls(address if address.startswith(("/", "@")) else "", watchdog_s)

    def ready(self) -> None:
        """The daemon is up."""
        self._send("READY=1")

    def status(self, words: str) -> None:
        """What it does, for people who ask the service manager; sent where it has changed."""
        words = " ".join(words.split())[:STATUS_MAX]
        if words != self._status:
            self._status = words
            self._send(f"STATUS={words}")

    def alive(self) -> None:
        """Work goes on."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The daemon is about to end."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)  # a manager that does not read must not hold us
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            log.debug("the service manager cannot be told %s: %s", text, error)
