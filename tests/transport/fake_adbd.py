"""A fake adbd: the device's side of the Android Debug Bridge over TCP, written for these tests.

No package has a real one. The system's own `adb connect` talks to it, so server, client and their quirks are real; what
is fake is the phone. Its commands are real processes, started by the argv that `shell` gives for a command line.

Words of the protocol: a message is six little-endian words (command, two arguments, length, byte sum, command inverted)
and its data; streams are opened with OPEN, carried with WRTE, each answered with OKAY, and ended with CLSE.
"""

import os
import pty
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (int.from_bytes(name, "little") for name in
                                      (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE"))  # fmt: skip
AUTH_TOKEN, AUTH_SIGNATURE, AUTH_PUBLIC_KEY = 1, 2, 3
VERSION = 0x01000000  # the one whose messages carry their byte sum
MAX_PAYLOAD = 256 << 10
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # packets of "shell,v2"

_HEADER = struct.Struct("<6I")


@dataclass
class Phone:
    """How the fake device acts, to be changed while it runs."""

    shell: Callable[[str], Sequence[str]]  # a command line -> the process that runs it
    environment: Mapping[str, str]
    files: Path  # where paths of adb push and pull lie on this machine: "/x" is files/x
    features: str = "shell_v2,cmd"
    trusts: bool = True  # False: nobody has accepted this computer's key
    lost_after: int | None = None  # bytes of standard input after which the cable is pulled, once
    commands: list[str] = field(default_factory=list)  # what was run
    ended: int = 0  # how many of them ran to their end


class FakeAdbd:
    """Listens on a free port of 127.0.0.1 until closed."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[_Connection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and drop every connection."""
        with suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.drop()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(peer, self.phone)
            self._connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """One `adb connect`."""

    def __init__(self, peer: socket.socket, phone: Phone) -> None:
        self._peer, self._phone = peer, phone
        self._sending = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._last_id = 0

    def drop(self) -> None:
        """Pull the cable."""
        with suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Answer messages until the connection ends."""
        try:
            while (message := self._receive()) is not None:
                self._handle(*message)
        except OSError:
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.end()
            self._peer.close()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        """One message to the computer."""
        head = _HEADER.pack(command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self._sending:
            self._peer.sendall(head + data)

    def forget(self, stream: "_Stream") -> None:
        """A stream has ended."""
        if self._streams.pop(stream.local, None) is not None:
            self.send(CLSE, stream.local, stream.remote)

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            if self._phone.trusts:
                self._welcome()
            else:
                self.send(AUTH, AUTH_TOKEN, 0, os.urandom(20))
        elif command == AUTH:
            if self._phone.trusts:  # as after a touch on "Allow USB debugging"
                self._welcome()
            elif first == AUTH_SIGNATURE:
                self.send(AUTH, AUTH_TOKEN, 0, os.urandom(20))
        elif command == OPEN:
            self._last_id += 1
            stream = _Stream(self, self._phone, self._last_id, first)
            self._streams[stream.local] = stream
            self.send(OKAY, stream.local, stream.remote)
            stream.start(data.rstrip(b"\0").decode())
        elif stream_there := self._streams.get(second):
            if command == WRTE:
                stream_there.take(data)
                self.send(OKAY, stream_there.local, stream_there.remote)
            elif command == OKAY:
                stream_there.room.set()
            elif command == CLSE:
                stream_there.end()

    def _welcome(self) -> None:
        said = f"device::ro.product.name=fake;ro.product.model=Fake adbd;features={self._phone.features}"
        self.send(CNXN, VERSION, MAX_PAYLOAD, said.encode())

    def _receive(self) -> tuple[int, int, int, bytes] | None:
        head = self._exactly(_HEADER.size)
        if head is None:
            return None
        command, first, second, length, _, _ = _HEADER.unpack(head)
        data = self._exactly(length)
        return None if data is None else (command, first, second, data)

    def _exactly(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            part = self._peer.recv(size - len(parts))
            if not part:
                return None
            parts += part
        return bytes(parts)


class _Stream:
    """One service that the computer opened: a command, or a copy."""

    def __init__(self, connection: _Connection, phone: Phone, local: int, remote: int) -> None:
        self.local, self.remote = local, remote
        self.room = threading.Event()  # the computer has taken what was written last
        self._connection, self._phone = connection, phone
        self._input = _Pipe()
        self._process: subprocess.Popen[bytes] | None = None

    def take(self, data: bytes) -> None:
        """Bytes from the computer."""
        self._input.put(data)

    def end(self) -> None:
        """The computer is gone or wants no more."""
        self._input.close()
        self.room.set()

    def start(self, service: str) -> None:
        """Run a service by its name, as in an OPEN message."""
        kind, _, rest = service.partition(":")
        serving: dict[str, Callable[[str], None]] = {"sync": self._sync, "shell": self._legacy_shell}
        if kind.startswith("shell,v2"):
            serving[kind] = self._shell_v2
        serve = serving.get(kind)
        if serve is None:
            self._connection.forget(self)
            return
        threading.Thread(target=self._serve, args=(serve, rest), daemon=True).start()

    def _serve(self, serve: Callable[[str], None], rest: str) -> None:
        try:
            serve(rest)
            self._connection.forget(self)
        except (OSError, EOFError):
            return

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_PAYLOAD):
            self.room.clear()
            self._connection.send(WRTE, self.local, self.remote, data[start : start + MAX_PAYLOAD])
            self.room.wait(60)

    # Commands

    def _popen(self, command: str, stream: int) -> subprocess.Popen[bytes]:
        self._phone.commands.append(command)
        argv, environment = list(self._phone.shell(command)), dict(self._phone.environment)
        return subprocess.Popen(argv, env=environment, cwd="/", stdin=stream, stdout=stream, stderr=stream)

    def _shell_v2(self, command: str) -> None:
        """A process with three pipes; packets of an id, a length and data."""
        process = self._popen(command, subprocess.PIPE)
        assert process.stdin and process.stdout and process.stderr
        threading.Thread(target=self._feed, args=(process.stdin,), daemon=True).start()
        writing = threading.Lock()

        def pump(kind: int, source: int) -> None:
            while data := os.read(source, 60_000):
                with writing, suppress(OSError):  # a computer that is gone does not end the command
                    self._write(struct.pack("<BI", kind, len(data)) + data)

        errors = threading.Thread(target=pump, args=(STDERR, process.stderr.fileno()), daemon=True)
        errors.start()
        pump(STDOUT, process.stdout.fileno())
        errors.join()
        code = process.wait()
        self._phone.ended += 1
        self._write(struct.pack("<BIB", EXIT, 1, code & 0xFF if code >= 0 else 128 - code))

    def _feed(self, standard_input: IO[bytes]) -> None:
        try:
            taken = 0
            while True:
                kind, length = struct.unpack("<BI", self._input.exactly(5))
                data = self._input.exactly(length)
                if kind == CLOSE_STDIN:
                    break
                taken += length
                if self._phone.lost_after is not None and taken > self._phone.lost_after:
                    self._phone.lost_after = None
                    standard_input.write(data[: len(data) // 2])
                    standard_input.close()
                    self._connection.drop()
                    return
                standard_input.write(data)
            standard_input.close()
        except (OSError, EOFError, ValueError):
            return

    def _legacy_shell(self, command: str) -> None:
        """As before Android 7: a terminal, which makes \\r\\n of \\n and mixes both outputs; no exit code."""
        master, slave = pty.openpty()
        process = self._popen(command, slave)
        os.close(slave)
        try:
            while data := os.read(master, 60_000):
                self._write(data)
        except OSError:
            pass  # EIO: the last process has closed it
        os.close(master)
        process.wait()
        self._phone.ended += 1

    # Copies

    def _sync(self, _: str) -> None:
        """adb push and pull: requests of four letters, a length and a name."""
        while True:
            name, length = struct.unpack("<4sI", self._input.exactly(8))
            if name == b"QUIT":
                return
            path = self._input.exactly(length).decode()
            if name == b"STAT":
                place = self._local(path)
                found = place.stat() if place.exists() else None
                self._write(b"STAT" + struct.pack("<3I", *((found.st_mode, found.st_size, int(found.st_mtime))
                                                           if found else (0, 0, 0))))  # fmt: skip
            elif name == b"SEND":
                self._receive_file(self._local(path.rpartition(",")[0]))
            elif name == b"RECV":
                data = self._local(path).read_bytes()
                for start in range(0, len(data), 64 << 10):
                    piece = data[start : start + (64 << 10)]
                    self._write(b"DATA" + struct.pack("<I", len(piece)) + piece)
                self._write(b"DONE" + struct.pack("<I", 0))
            else:
                self._write(b"FAIL" + struct.pack("<I", 7) + b"unknown")

    def _receive_file(self, place: Path) -> None:
        with place.open("wb") as file:
            while True:
                name, length = struct.unpack("<4sI", self._input.exactly(8))
                if name == b"DONE":
                    break
                file.write(self._input.exactly(length))
        self._write(b"OKAY" + struct.pack("<I", 0))

    def _local(self, path: str) -> Path:
        return self._phone.files / path.lstrip("/")


class _Pipe:
    """Bytes from one thread to another."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, data: bytes) -> None:
        with self._changed:
            self._data += data
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def exactly(self, size: int) -> bytes:
        """Waits for so many bytes. Raises EOFError where no more come."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._data) >= size or self._closed)
            if len(self._data) < size:
                raise EOFError
            taken = bytes(self._data[:size])
            del self._data[:size]
            return taken


def wait_until(what: Callable[[], bool], timeout_s: float = 20) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
