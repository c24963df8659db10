"""A board with a console: a process on a pseudo-terminal, its wire a TCP port or another pseudo-terminal.

The wire is a thread of the test, so it can flip and drop bytes, and break.
"""

import contextlib
import fcntl
import json
import os
import pty
import select
import socket
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence

import pytest

Damage = Callable[[bytes, bool], bytes]  # what goes over the wire, and whether it goes to the board

PASSWORD = "s3cret'\"$x"

# What a getty and login do, with the words and faults that a test wants.
GETTY = r"""
import json, os, subprocess, sys, termios, time
act = json.loads(sys.argv[1])

def say(text):
    os.write(1, text.encode())

def line(echo):
    mode = termios.tcgetattr(0)
    mode[3] = mode[3] | termios.ECHO if echo else mode[3] & ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, mode)
    data = b""
    while not data.endswith(b"\n"):
        data += os.read(0, 4096) or sys.exit()
    return data.decode().strip()

while True:
    say("\nTest board ttyS0\n\nboard login: " + act.get("noise", ""))
    user = line(True)
    if not user:
        continue
    if act.get("password"):
        say("Password: " + act.get("noise", ""))
        given = line(False)
        say("\n")
        line_mode = termios.tcgetattr(0)
        line_mode[3] |= termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, line_mode)
        if (user, given) != (act["user"], act["password"]):
            say("\nLogin incorrect\n")
            continue
    if act.get("expired"):
        say("You are required to change your password immediately (administrator enforced).\nCurrent password: ")
        line(False)
        continue
    say("Last login: Thu Nov 26 09:00:00 UTC 2026 on ttyS0\nMessage of the day: login: at will, 100 % > free\n")
    say(act.get("noise", ""))
    subprocess.run(act["shell"], env={**os.environ, **act.get("env", {})})
"""


class Board:
    """A process with a console, and the wire to it."""

    def __init__(self, argv: Sequence[str], *, damage: Damage | None = None) -> None:
        self.damage = damage
        self._master, self.terminal = pty.openpty()
        self._near, self._far = pty.openpty()
        tty.setraw(self._far)
        for end in (self._master, self._near):  # what select() said may be old: _to_board() reads and writes both too
            os.set_blocking(end, False)
        self.port = os.ttyname(self._far)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._server.getsockname())
        self._tcp: socket.socket | None = None
        self._late = b""  # said by the board to a port that nobody reads just now
        self.process = subprocess.Popen(
            argv, stdin=self.terminal, stdout=self.terminal, stderr=self.terminal, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self._stop, self._stopped = os.pipe()
        self._wire = threading.Thread(target=self._carry, daemon=True)
        self._wire.start()

    @property
    def serial_url(self) -> str:
        return f"serial://{self.port}?user=pi"

    @property
    def socket_url(self) -> str:
        return f"socket://{self.address}?user=pi"

    def cut(self) -> None:
        """Break the TCP connection that there is."""
        if self._tcp:
            self._tcp.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        os.close(self._stopped)
        self._wire.join(timeout=10)
        self.process.kill()
        self.process.wait(timeout=10)
        if self._tcp:
            self._tcp.close()
        self._server.close()
        for handle in (self._stop, self._master, self.terminal, self._near, self._far):
            os.close(handle)

    def _carry(self) -> None:
        while True:
            sources = [self._stop, self._master, self._near, self._tcp or self._server]
            ready, free, _ = select.select(sources, self._late_port(), [])
            if self._stop in ready:
                return
            if self._server in ready:
                self._tcp, _ = self._server.accept()
            if self._tcp in ready:
                self._from_tcp()
            if self._near in free:
                self._to_port()
            if self._near in ready:
                self._to_board(os.read(self._near, 65_536))
            if self._master in ready:
                self._from_board()

    def _from_tcp(self) -> None:
        assert self._tcp is not None
        try:
            data = self._tcp.recv(65_536)
        except OSError:
            data = b""
        if data:
            self._to_board(data)
        else:
            self._tcp.close()
            self._tcp = None

    def _to_board(self, data: bytes) -> None:
        data = self.damage(data, True) if self.damage else data
        while data:  # a pseudo-terminal's reader may be late, and may be talking itself
            ready, free, _ = select.select([self._master, self._stop], [self._master, *self._late_port()], [])
            if self._stop in ready:
                return
            if self._master in ready:
                self._from_board()
            if self._near in free:
                self._to_port()
            if self._master in free:
                data = _written(self._master, data)

    def _from_board(self) -> None:
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # nothing is there any more, or the board hung its side up for a moment, as login does
            return
        data = self.damage(data, False) if self.damage else data
        if self._tcp:
            with contextlib.suppress(OSError):
                self._tcp.sendall(data)
        else:
            self._late += data

    def _late_port(self) -> list[int]:
        """The port, while something waits to be read there: who only writes must not hold up the wire."""
        return [self._near] if self._late else []

    def _to_port(self) -> None:
        self._late = _written(self._near, self._late)


def _written(end: int, data: bytes) -> bytes:
    """What is left of the data after as much as goes into a pseudo-terminal now."""
    try:
        return data[os.write(end, data[:512]) :]
    except BlockingIOError:
        return data


@pytest.fixture
def board() -> Iterator[Callable[..., Board]]:
    """Makes boards: of a command, or one with a getty that acts as told."""
    made: list[Board] = []

    def make(argv: Sequence[str] | None = None, *, damage: Damage | None = None, **act: object) -> Board:
        if argv is None:
            given = {"shell": ["sh", "-i"], "user": "pi", "password": PASSWORD, **act}
            argv = [sys.executable, "-c", GETTY, json.dumps(given)]
        made.append(Board(argv, damage=damage))
        return made[-1]

    yield make
    for one in made:
        one.close()
