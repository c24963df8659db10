"""Fixtures for devices over adb: an adb server of the tests' own, and behind it a phone (transport/fake_adbd.py)."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from transport.fake_adbd import FakeAdbd, Phone, wait_until

# What Android 8 has of toybox, as far as edgebit uses it; a script that needs more fails here.
APPLETS = ("cat", "chmod", "cp", "cut", "date", "df", "dirname", "echo", "env", "false", "getconf", "grep", "head",
           "id", "kill", "ln", "ls", "mkdir", "mv", "nohup", "od", "printf", "ps", "readlink", "rm", "rmdir", "sed",
           "setsid", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "touch", "tr", "true", "uname",
           "wc")  # fmt: skip


@dataclass
class FakePhone:
    """A phone that is this machine: its shell is mksh, its programs are toybox's; it may be unplugged and come back."""

    phone: Phone
    folder: Path  # an empty one, for the test's files on "the device"
    adbds: list[FakeAdbd] = field(default_factory=list)

    @property
    def serial(self) -> str:
        """As adb devices shows it."""
        return f"127.0.0.1:{self.adbds[-1].port}"

    @property
    def url(self) -> str:
        """Where to deploy to; without the folder it is the one that edgebit would choose on a phone."""
        return f"adb://{self.serial}{self.folder}/edgebit"

    def plug_in(self) -> None:
        """A new adbd, with a new serial."""
        self.adbds.append(FakeAdbd(self.phone))


@pytest.fixture(scope="session")
def adb_server(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an adb server that sees no device of this machine but those that are connected to it."""
    home = tmp_path_factory.mktemp("adb-home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    environment = {**os.environ, "HOME": str(home), "ANDROID_ADB_SERVER_PORT": str(port), "ADB_MDNS": "0"}
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [require_tool("adb"), "nodaemon", "server"], env=environment, cwd=home, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
        )  # fmt: skip

    def listens() -> bool:
        assert server.poll() is None, (home / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens)
    yield port
    server.send_signal(signal.SIGTERM)
    server.wait(timeout=10)


@pytest.fixture
def adb(adb_server: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs adb with the tests' own server, which the code under test uses too."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)

    def run(*args: str) -> str:
        return subprocess.run(["adb", *args], capture_output=True, text=True, check=True, timeout=60).stdout

    return run


@pytest.fixture(scope="session")
def phone_programs(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH: mksh as sh, toybox as everything else, and no Python."""
    folder = tmp_path_factory.mktemp("phone-bin")
    (folder / "sh").symlink_to(require_tool("mksh"))
    toybox = require_tool("toybox")
    has = subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split()
    for name in APPLETS:
        if name in has:
            (folder / name).symlink_to(toybox)
    return folder


@pytest.fixture
def fake_phone(adb: Callable[..., str], phone_programs: Path, tmp_path: Path) -> Iterator[FakePhone]:
    """A phone with a current adbd, plugged in."""
    folder = tmp_path / "on the phone"
    folder.mkdir()
    phone = Phone(
        shell=lambda command: [str(phone_programs / "sh"), "-c", command],
        environment={"PATH": str(phone_programs), "HOME": "/"},
        files=Path("/"),
    )
    device = FakePhone(phone, folder)
    device.plug_in()
    yield device
    for adbd in device.adbds:
        subprocess.run(["adb", "disconnect", f"127.0.0.1:{adbd.port}"], capture_output=True, check=False, timeout=60)
        adbd.close()
