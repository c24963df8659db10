"""The device over its serial console: slow, and there when nothing else is. For the first bundle and for rescue."""

import base64
import getpass
import gzip
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Self

from edgebit.errors import TransportError
from edgebit.transport import DEFAULT_ROOT, Completed, Options, Progress, Section, Transport, resume_at
from edgebit.transport.console_link import Link
from edgebit.transport.console_login import Credentials, Login
from edgebit.transport.serial_line import Address, Line

PASSWORD_VARIABLE = "EDGEBIT_SERIAL_PASSWORD"
SUM_TIMEOUT_S = 600
_SHARE = 0.7  # of the bits on the line that are a file's: base64 takes a quarter, waiting for answers a little
_TIMED_OUT = 124  # what `timeout` ends with, and a program may
_GZIP_GAIN = 0.9  # compress a piece where it comes out smaller than this


class SerialTransport(Transport):
    """serial://PORT, rfc2217:// or socket://HOST:PORT: a shell behind a login, over which only text goes safely."""

    def __init__(self, address: Address, options: Options) -> None:
        self.url = address.url
        self.root = (options.root or DEFAULT_ROOT).removeprefix("~/")  # the login folder, which is implied
        self.bytes_per_s = address.baud / 10 * _SHARE if address.baud else None
        self._line = Line.open(address)
        try:
            self._login = Login(self._line, _credentials(address, options))
            self._login.reach_shell()
            self._link = Link(self._line, logged_in=self._login.logged_in)
            self._has_gzip = self._link.ask("has gzip") == "yes"
        except BaseException:
            self._line.close()
            raise

    @classmethod
    def from_url(cls, url: str, options: Options) -> Self:
        """Open the port, log in, and start our program there. Raises TransportError, with the mend."""
        return cls(Address.parse(url), options)

    def run(self, argv: Sequence[str], *, input: bytes | None = None, timeout_s: float = 60) -> Completed:
        if input is not None:
            self._write("$T/in", input)
        command = f"exec {shlex.join(argv)}\n".encode()
        limit_s = max(1, math.ceil(timeout_s))
        source = "/dev/null" if input is None else "$T/in"
        began = time.monotonic()
        answer = self._write("$T/command", command, then=f'run {limit_s} "{source}"', timeout_s=limit_s)
        code, out, err, *inlined = answer.split()
        if int(code) == _TIMED_OUT and time.monotonic() - began >= limit_s:
            raise TransportError(f"{argv[0]} on {self.url} did not end within {timeout_s:g} s")
        if inlined:
            stdout, stderr = (base64.b64decode(text.removeprefix(".")) for text in inlined)
        else:
            stdout, stderr = self._read("$T/out", int(out)), self._read("$T/err", int(err))
        return Completed(stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"), int(code))

    def put(self, source: Section, remote: str, progress: Progress | None = None) -> None:
        done = resume_at(self, source, remote)
        if progress is not None and done:
            progress(done)
        try:
            with source.path.open("rb") as file:
                file.seek(source.offset + done)
                self._link.ask("file", remote.encode())
                if not done:
                    self._done("empty")
                while done < source.size:
                    done += (sent := self._append(file, source, done))
                    if progress is not None:
                        progress(sent)
        except TransportError as error:
            raise TransportError(
                f"{remote} was not sent whole ({done} of {source.size} bytes arrived): {error}. Deploy again: it goes"
                " on where it stopped"
            ) from error
        if resume_at(self, source, remote) != source.size:
            raise TransportError(f"{remote} arrived damaged on {self.url}: its SHA-256 is another. Deploy again")

    def get(self, remote: str, local: Path) -> None:
        self._link.ask("file", remote.encode())
        size = self._link.ask("size", timeout_s=SUM_TIMEOUT_S).strip()
        if not size.isdigit():
            raise TransportError(f"{remote} cannot be read on {self.url}: {size}")
        with local.open("xb") as file:
            try:
                self._copy(file, int(size))
            except BaseException:
                local.unlink()
                raise

    def close(self) -> None:
        try:
            self._link.close()
            self._login.leave()
        except TransportError:
            pass  # the line broke: its end of it is the device's own affair
        finally:
            self._line.close()

    def _append(self, file: IO[bytes], source: Section, done: int) -> int:
        """Send the next piece of a file; gives its size. It is compressed where that makes it smaller."""
        limit = self._link.piece_bytes
        raw = file.read(min(4 * limit, source.size - done))
        packed = self._packed(raw)
        for fits in (len(raw) * limit // max(1, len(packed)), limit):  # as if all packs alike; or not at all
            if len(packed) <= 4 * limit // 3 or len(raw) <= limit:
                break
            file.seek(max(fits, limit) - len(raw), os.SEEK_CUR)
            raw = raw[: max(fits, limit)]
            packed = self._packed(raw)
        if not raw:
            raise TransportError(f"{source.path} ends {source.size - done} bytes early: it changed")
        if len(packed) < _GZIP_GAIN * len(raw):
            self._done("append gzip -dc", packed)
        else:
            self._done("append cat", raw)
        return len(raw)

    def _packed(self, raw: bytes) -> bytes:
        return gzip.compress(raw, mtime=0) if self._has_gzip else raw

    def _write(self, place: str, data: bytes, *, then: str = "", timeout_s: float = 0) -> str:
        """Write a file of the device, and once it is whole have `then` done; gives the last answer.

        `place` and `then` are read by the device's shell.
        """
        code, piece, answer = f"F={place}; empty; append cat", self._link.piece_bytes, ""
        for begin in range(0, len(data) or 1, piece):
            if then and begin + piece >= len(data):
                code += f'; [ "$r" = ok ] && {then}'
            answer = self._done(code, data[begin : begin + piece], timeout_s=timeout_s)
            code = "append cat"
        return answer

    def _read(self, place: str, size: int) -> bytes:
        """Read a file of the device; `place` is read by its shell."""
        self._link.ask(f"F={place}")
        whole = BytesIO()
        self._copy(whole, size)
        return whole.getvalue()

    def _copy(self, file: IO[bytes], size: int) -> None:
        """Fetch the file that is meant on the device."""
        piece = self._link.piece_bytes
        for number in range(-(-size // piece)):
            file.write(base64.b64decode(self._link.ask(f"piece {piece} {number}")))
        if file.tell() != size:
            raise TransportError(f"{self.url}: a file changed its size while it was read. Try again")

    def _done(self, code: str, payload: bytes = b"", *, timeout_s: float = 0) -> str:
        """Ask, and raise TransportError with the device's words where it could not be done."""
        answer = self._link.ask(code, payload, timeout_s=timeout_s)
        if answer.startswith("no "):
            raise TransportError(f"{self.url} says: {answer.removeprefix('no ').strip()}")
        return answer


def _credentials(address: Address, options: Options) -> Credentials:
    """Who logs in: from the URL, a file, the environment, or a prompt on a terminal, in this order."""

    def user() -> str:
        if address.user:
            return address.user
        if not sys.stdin.isatty():
            raise TransportError(f"{address.url} asks who logs in. Say so in the URL: {address.url}?user=USER")
        return input(f"User at {address.url}: ").strip()

    def password(name: str) -> str:
        if file := options.serial_password_file:
            try:
                found = (file.read_text(encoding="utf-8").splitlines() or [""])[0]
            except (OSError, UnicodeDecodeError) as error:
                raise TransportError(f"--serial-password-file {file} cannot be read: {error}") from error
        elif PASSWORD_VARIABLE in os.environ:
            found = os.environ[PASSWORD_VARIABLE]
        elif sys.stdin.isatty():
            found = getpass.getpass(f"Password of {name} at {address.url}: ")
        else:
            raise TransportError(
                f"{address.url} asks for the password of {name}. Give it with --serial-password-file or"
                f" {PASSWORD_VARIABLE}"
            )
        if re.search(r"[\x00-\x1f\x7f]", found):
            raise TransportError(f"the password of {name} has control characters, which no console takes")
        return found

    return Credentials(user, password)
