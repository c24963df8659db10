"""The wire to a console: a serial port of this machine, or one behind a TCP port, opened with pyserial."""

import errno
import re
import time
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from edgebit.errors import TransportError
from edgebit.transport import TRANSPORTS

DEFAULT_BAUD = 115_200  # what a Raspberry Pi's console has, and most others
WRITE_TIMEOUT_S = 120.0
_POLL_S = 0.05
_AT_ONCE = 4096

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@$-]*")


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says about a console."""

    url: str  # for messages: without the query
    port: str  # as pyserial takes it
    baud: int | None  # None over socket://, where the far end sets it, unless the URL says what it is
    user: str | None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises TransportError with the form that the URL should have."""
        scheme = url.partition(":")[0]
        form = TRANSPORTS[scheme][1]
        try:
            parts = urlsplit(url)
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            place = unquote(parts.netloc + parts.path) if scheme == "serial" else f"{scheme}://{parts.netloc}"
            if scheme != "serial" and (not parts.hostname or parts.port is None or parts.path.strip("/")):
                raise ValueError("it names no HOST:PORT")
        except ValueError as error:
            raise TransportError(f"{url!r}: {error}. Write {form}") from None
        if "@" in parts.netloc or not place:
            raise TransportError(f"{url!r} names no port, or a user where none can be. Write {form}")
        asked = dict(query)
        if "password" in asked:
            raise TransportError(
                "a password has no place in a URL: use --serial-password-file, EDGEBIT_SERIAL_PASSWORD, or the prompt"
            )
        if unknown := sorted(set(asked) - {"baud", "user"}):
            raise TransportError(f"{url!r}: there is no {unknown[0]!r} to set. Write {form}")
        baud, user = asked.get("baud"), asked.get("user")
        if baud is not None and not (re.fullmatch(r"[1-9][0-9]{1,7}", baud)):
            raise TransportError(f"{url!r}: baud={baud} is no rate. Common ones are 115200, 9600, 57600 and 1500000")
        if user is not None and not _USER.fullmatch(user):
            raise TransportError(f"{url!r}: {user!r} is no user's name. Write {form}")
        rate = int(baud) if baud else None if scheme == "socket" else DEFAULT_BAUD
        return cls(f"{scheme}://{place}" if scheme == "serial" else place, place, rate, user)


class Line:
    """An open port: bytes in, bytes out. Every fault of it is a TransportError that says how to mend it."""

    def __init__(self, port: Any, address: Address) -> None:
        self._port = port
        self.address = address

    @classmethod
    def open(cls, address: Address) -> Self:
        """Take the port for ourselves."""
        import serial  # only who has a console waits for it

        options: dict[str, Any] = {"timeout": _POLL_S}
        if not address.port.startswith("rfc2217:"):  # which knows none
            options["write_timeout"] = WRITE_TIMEOUT_S
        if "://" not in address.port:
            options["exclusive"] = True
        try:
            port = serial.serial_for_url(address.port, address.baud or DEFAULT_BAUD, **options)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise TransportError(_why_not_open(address, error)) from error
        return cls(port, address)

    def read(self, patience_s: float) -> bytes:
        """What has come in; waits at most about patience_s for the first byte, and gives b"" if none came."""
        until = time.monotonic() + patience_s
        try:
            while True:
                data: bytes = self._port.read(1)
                if data:
                    while len(data) < _AT_ONCE and (waiting := self._port.in_waiting):  # over TCP it says 1 for any
                        data += self._port.read(waiting)
                    return data
                if time.monotonic() >= until:
                    return b""
        except OSError as error:
            raise TransportError(self._lost(error)) from error

    def write(self, data: bytes) -> None:
        """Send bytes; returns once they are on their way."""
        try:
            self._port.write(data)
        except OSError as error:
            raise TransportError(self._lost(error)) from error

    def close(self) -> None:
        """Let the port go."""
        self._port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lost(self, error: Exception) -> str:
        return f"{self.address.url}: the line broke ({error}). Look at the cable, then try again"


def _why_not_open(address: Address, error: Exception) -> str:
    url, port, number = address.url, address.port, getattr(error, "errno", None)
    said = str(error)
    if "://" in port:
        return f"{url}: nobody answers there: {said}. Is the server of that serial port running, and reachable?"
    if number == errno.ENOENT:
        return f"{url}: there is no {port}. Is the adapter plugged in? These are there: {_ports()}"
    if number in (errno.EACCES, errno.EPERM):
        return f"{url}: you may not use {port}. Join its group and log in anew: sudo usermod -aG dialout $USER"
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
        return f"{url}: another program has {port} open, such as a terminal (fuser {port} names it). Close that first"
    if isinstance(error, ValueError) or number == errno.EINVAL:
        return f"{url}: {port} cannot be set to {address.baud} baud: {said}"
    return f"{url}: {port} cannot be opened: {said}"


def _ports() -> str:
    from serial.tools import list_ports

    return ", ".join(sorted(str(port.device) for port in list_ports.comports())) or "none"
