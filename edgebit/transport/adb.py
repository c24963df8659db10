"""The device over the Android Debug Bridge: the system's own `adb`, so that its server, keys and USB rules hold.

Two facts shape it. `adb shell` ends with 0 when the connection is lost in the middle of a command, so every command
says its exit code itself, on standard error. And an adbd from before Android 7, or of an embedded Linux, has neither
exit codes nor streams of its own, so there everything goes through files that adb copies.
"""

import os
import re
import secrets
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from edgebit.errors import TransportError
from edgebit.transport import TRANSPORTS, Completed, Options, Progress, Section, Transport, resume_at

ANDROID_FOLDER = "/data/local/tmp"  # where adb's own user may write, and run programs
CONNECT_TIMEOUT_S = 20.0
_CHUNK = 4 << 20  # its end is asked for before the next is sent, so no single copy is long enough to time out
_CHUNK_TIMEOUT_S = 300.0  # at 14 kB/s

_SERIAL = re.compile(r"[A-Za-z0-9_.:\[\]%-]*")
_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")
_NETWORK = re.compile(r".+:[0-9]{1,5}")  # HOST:PORT, which adb must be told to connect to
_PASSING = {"authorizing", "connecting", "offline"}  # a device that was just plugged in is so for a moment

# A device's state, or what stands in adb's words -> what to do about it; {serial} is filled in.
_MENDS = (
    (
        "unauthorized",
        "the device has not accepted this computer's key yet. Unlock it and answer 'Allow USB debugging?' with Allow;"
        " if it does not ask, switch USB debugging off and on again in its developer options",
    ),
    (
        "no permissions",
        "this user may not use the USB device. sudo apt install android-sdk-platform-tools-common (its udev rules),"
        " sudo usermod -aG plugdev $USER, log in again, and plug the device in again",
    ),
    (
        "offline",
        "the device does not answer adb. Unplug it and plug it in again, or: adb reconnect {serial} (over the network:"
        " adb disconnect {serial})",
    ),
    ("authorizing", "the device is still being asked. Try again in a moment"),
    ("connecting", "the device is still being connected. Try again in a moment"),
    ("recovery", "the device is in its recovery system. Start it normally"),
    ("sideload", "the device is in its recovery system. Start it normally"),
    ("bootloader", "the device is in its bootloader. Start it normally"),
    ("not found", "adb does not see it any more. Is the cable in, or the device in the same network?"),
    (
        "daemon",
        "adb's own server does not run and cannot be started. Look at: adb start-server (another program may hold port"
        " 5037)",
    ),
)
_NO_DEVICE = (
    "adb sees no device. Switch on USB debugging (Settings, Developer options) and plug it in, or name one in the"
    " network: adb://HOST:5555"
)
_CONNECT_MENDS = (
    ("refused", "nothing listens for adb at {serial}. Switch on wireless debugging, or with a cable: adb tcpip 5555"),
    ("authenticate", "{serial} has not accepted this computer's key. Unlock it, answer Allow, and try again"),
    ("", "is it on, and in the same network? Since Android 11 it wants to be paired first: adb pair HOST:PAIRING-PORT"),
)


class AdbTransport(Transport):
    """adb://[PACKAGE@][SERIAL][/FOLDER]. SERIAL is as `adb devices` shows it, or HOST:PORT; without one, the only one.

    PACKAGE@ takes the place of that app, by the device's `run-as`: com.termux@ for Termux where its build allows that.
    """

    def __init__(self, serial: str, package: str | None, options: Options, folder: str) -> None:
        self._serial = _ready(serial)
        self.url = f"adb://{f'{package}@' if package else ''}{self._serial}"
        self._package = package
        self._token = f"edgebit-{secrets.token_hex(6)}"
        self._has_streams = "shell_v2" in self._asked("features").stdout.decode("utf-8", "replace").split()
        self._scratch = "" if self._has_streams else self._scratch_folder()
        if package and not self._has_streams:
            raise TransportError(
                f"{self.url}: its adbd is too old for run-as with input and output. Leave {package}@ out"
            )
        self._device_folder = self._look()
        self.root = options.root or folder or f"{self._device_folder}/edgebit"

    @classmethod
    def from_url(cls, url: str, options: Options) -> Self:
        """Find the device. Raises TransportError for a URL that is none, and where adb cannot reach it."""
        place, slash, folder = url.removeprefix("adb:").removeprefix("//").partition("/")
        package, at, serial = place.rpartition("@")
        if not url.startswith("adb://") or not _SERIAL.fullmatch(serial) or (at and not _PACKAGE.fullmatch(package)):
            form = TRANSPORTS["adb"][1]
            raise TransportError(f"{url!r} names no device. Write {form}, with SERIAL as `adb devices` shows it")
        return cls(serial, package if at else None, options, unquote(slash + folder).rstrip("/"))

    def run(self, argv: Sequence[str], *, input: bytes | None = None, timeout_s: float = 60) -> Completed:
        out, err, code = self._run(self._command(argv), argv[0], input, timeout_s)
        return Completed(out.decode("utf-8", "replace"), err.decode("utf-8", "replace"), code)

    def put(self, source: Section, remote: str, progress: Progress | None = None) -> None:
        sent = resume_at(self, source, remote)
        if progress is not None and sent:
            progress(sent)
        script = 'cat >>"$1" && stat -c %s "$1"' if sent else 'cat >"$1" && stat -c %s "$1"'
        with source.path.open("rb") as file:
            file.seek(source.offset + sent)
            while True:
                chunk = file.read(min(_CHUNK, source.size - sent))
                if not chunk and sent < source.size:
                    raise TransportError(f"{source.path} ends {source.size - sent} bytes early: it changed")
                try:
                    done = self.run(["sh", "-c", script, "sh", remote], input=chunk, timeout_s=_CHUNK_TIMEOUT_S)
                except TransportError as error:
                    raise self._cut_off(remote, sent, source, str(error)) from error
                if done.code:
                    raise self._cut_off(remote, sent, source, done.stderr.strip() or "no reason given")
                sent += len(chunk)
                if done.stdout.strip() != str(sent):
                    raise self._cut_off(remote, sent, source, f"it has {done.stdout.strip()} bytes there instead")
                if progress is not None:
                    progress(len(chunk))
                if sent == source.size:
                    return
                script = 'cat >>"$1" && stat -c %s "$1"'

    def get(self, remote: str, local: Path) -> None:
        out, err, code = self._run(self._command(["cat", remote]), "cat", None, 3600)
        if code:
            raise TransportError(f"{remote} cannot be read on {self._serial}: {err.decode('utf-8', 'replace').strip()}")
        with local.open("xb") as file:
            file.write(out)

    def close(self) -> None:
        """Nothing is held open; a device in the network stays connected to adb's server."""

    def _look(self) -> str:
        """The folder that is ours to use there: Android's for adb, an app's own home, or a Linux user's."""
        if self._package:
            asked = self.run(["sh", "-c", "echo ok"])
            if asked.stdout.strip() != "ok":
                said = (asked.stderr.strip() or asked.stdout.strip())[-200:]
                raise TransportError(
                    f"{self.url}: the device lets nobody be {self._package} ({said}). Only an app built to be debugged"
                    " can be taken so; for Termux, start sshd in it: ssh://HOST:8022"
                )
            return f"{_app_files(self._package)}/home/.local/share"
        script = (
            f'if [ -d {ANDROID_FOLDER} ]; then echo {ANDROID_FOLDER}; else echo "${{HOME:-/root}}/.local/share"; fi'
        )
        asked = self.run(["sh", "-c", script])
        folder = asked.stdout.strip()
        if asked.code or not folder.startswith("/"):
            raise TransportError(f"{self.url} has no shell that edgebit can use: {asked.stderr.strip() or folder!r}")
        return folder

    def _command(self, argv: Sequence[str]) -> str:
        if not self._package:
            return shlex.join(argv)
        files = _app_files(self._package)
        there = [f"HOME={files}/home", f"PREFIX={files}/usr", f"TMPDIR={files}/usr/tmp"]
        path = f"PATH={files}/usr/bin:/system/bin"
        return shlex.join(["run-as", self._package, "env", *there, path, f"LD_LIBRARY_PATH={files}/usr/lib", *argv])

    def _run(self, command: str, name: str, input: bytes | None, timeout_s: float) -> tuple[bytes, bytes, int]:
        """Standard output, standard error and exit code of a command line on the device."""
        if not self._has_streams:
            return self._run_by_files(command, name, input, timeout_s)
        done = self._asked(
            "shell", "-T", f"{command}; echo {self._token}:$? >&2", input=input, timeout_s=timeout_s, name=name
        )
        said, found, code = done.stderr.rpartition(f"{self._token}:".encode())
        if not found:
            raise self._explained(done)
        return done.stdout, said, int(code)

    def _run_by_files(self, command: str, name: str, input: bytes | None, timeout_s: float) -> tuple[bytes, bytes, int]:
        """The same through an old adbd: a script and its input are pushed, what it wrote is pulled.

        Its terminal carries one line, the exit code; the sign before it is split, so that no echo can look like it.
        """
        there = f"{self._scratch}/{self._token}"
        with tempfile.TemporaryDirectory(prefix="edgebit-adb-") as folder:
            here = Path(folder)
            (here / "in").write_bytes(input or b"")
            (here / "run").write_text(f"{{ {command}\n}} <{there}.in >{there}.out 2>{there}.err\n")
            try:
                for part in ("in", "run"):
                    self._must("push", str(here / part), f"{there}.{part}")
                token = f"{self._token[:8]}''{self._token[8:]}"
                line = f"sh {there}.run </dev/null; echo {token}:$?"
                done = self._asked("shell", line, timeout_s=timeout_s, name=name)
                found = re.search(rf"{self._token}:([0-9]+)", done.stdout.decode("utf-8", "replace"))
                if found is None:
                    raise self._explained(done)
                for part in ("out", "err"):
                    self._must("pull", f"{there}.{part}", str(here / part))
            finally:
                self._asked("shell", f"rm -f {there}.in {there}.run {there}.out {there}.err")
            return (here / "out").read_bytes(), (here / "err").read_bytes(), int(found[1])

    def _scratch_folder(self) -> str:
        answer = self._asked("shell", f"[ -d {ANDROID_FOLDER} ] && echo ye''s").stdout
        return ANDROID_FOLDER if b"yes" in answer else "/tmp"

    def _must(self, *args: str) -> None:
        done = self._asked(*args, timeout_s=_CHUNK_TIMEOUT_S)
        if done.returncode:
            raise self._explained(done)

    def _asked(
        self, *args: str, input: bytes | None = None, timeout_s: float = 60, name: str = "adb"
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            return _adb("-s", self._serial, *args, input=input, timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            raise TransportError(f"{name} on {self._serial} did not end within {timeout_s:g} s") from None

    def _cut_off(self, remote: str, sent: int, source: Section, why: str) -> TransportError:
        return TransportError(
            f"{remote} was not sent whole ({sent} of {source.size} bytes are there): {why.rstrip('.')}. Deploy"
            " again: it goes on where it stopped"
        )

    def _explained(self, done: subprocess.CompletedProcess[bytes]) -> TransportError:
        said = " ".join((done.stderr + b" " + done.stdout).decode("utf-8", "replace").split())[-300:]
        if not said or done.returncode == 0:
            return TransportError(f"{self.url}: the connection was lost. Is the cable in, and the device awake?")
        return TransportError(f"{self.url}: {_mend(said, self._serial)} (adb says: {said})")


def _app_files(package: str) -> str:
    return f"/data/data/{package}/files"


def _mend(said: str, serial: str) -> str:
    return next((mend.format(serial=serial) for sign, mend in _MENDS if sign in said), "adb failed")


def _adb(*args: str, input: bytes | None = None, timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
    """Run the system's adb."""
    try:
        return subprocess.run(
            ["adb", *args],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise TransportError("there is no adb on this machine. Install it: sudo apt install adb") from None


def _ready(serial: str) -> str:
    """The serial of the device meant, once it can be used. Raises TransportError with the mend where it cannot."""
    serial = serial or os.environ.get("ANDROID_SERIAL", "")
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    if _NETWORK.fullmatch(serial) and _states().get(serial) != "device":
        _connect(serial)
    while True:
        states = _states()
        chosen = serial or _only(states)
        state = states.get(chosen, "")
        if state == "device":
            return chosen
        if not state:
            seen = ", ".join(f"{name} ({state})" for name, state in states.items())
            raise TransportError(f"adb sees no device {chosen}; it sees {seen}" if seen else _NO_DEVICE)
        if state not in _PASSING or time.monotonic() > deadline:
            raise TransportError(f"adb://{chosen}: {_mend(state, chosen)} (adb says: {state})")
        time.sleep(0.2)


def _only(states: dict[str, str]) -> str:
    """The one device there is. Raises TransportError where there is none, or a choice."""
    if not states:
        raise TransportError(_NO_DEVICE)
    usable = [serial for serial, state in states.items() if state == "device"] or list(states)
    if len(usable) > 1:
        raise TransportError("adb sees several devices; name one: " + ", ".join(f"adb://{serial}" for serial in usable))
    return usable[0]


def _states() -> dict[str, str]:
    """The devices that adb sees: serial -> state ("device" where it can be used)."""
    try:
        done = _adb("devices", timeout_s=CONNECT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise TransportError("adb's own server does not answer. End it: adb kill-server") from None
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
        raise TransportError(f"{_mend(said, '')} (adb says: {said})")
    states = {}
    for line in text.splitlines()[1:]:
        serial, _, state = line.replace("\t", " ").strip().partition(" ")
        if serial and not serial.startswith("*"):
            states[serial] = state.strip()
    return states


def _connect(serial: str) -> None:
    try:
        done = _adb("connect", serial, timeout_s=CONNECT_TIMEOUT_S)
        said = " ".join((done.stdout + b" " + done.stderr).decode("utf-8", "replace").split())
    except subprocess.TimeoutExpired:
        said = f"no answer within {CONNECT_TIMEOUT_S:g} s"
    if not re.match(r"(already )?connected to", said):
        mend = next(mend.format(serial=serial) for sign, mend in _CONNECT_MENDS if sign in said)
        raise TransportError(f"adb://{serial} cannot be connected: {mend} (adb says: {said[-200:]})")
