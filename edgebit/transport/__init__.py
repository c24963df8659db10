"""Ways to a device: run a command there, put a file there, get one back, and nothing more.

What is done with them (installing, checking, rolling back) is written once, in edgebit/deploy/.
"""

import difflib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgebit.errors import TransportError

DEFAULT_ROOT = ".local/share/edgebit"  # where edgebit lives on a device, counted from the login folder

Progress = Callable[[int], None]  # is told of bytes done since the last call


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command on a device ended: its output as text (bad UTF-8 replaced) and its exit code."""

    stdout: str
    stderr: str
    code: int


@dataclass(frozen=True, slots=True)
class Section:
    """The bytes to send: `size` bytes at `offset` of the local file `path`, so that bundles need no unpacking."""

    path: Path
    offset: int
    size: int


def prefix_sum(source: Section, size: int) -> str:
    """SHA-256, in hex, of the first `size` bytes of a section."""
    digest = hashlib.sha256()
    with source.path.open("rb") as file:
        file.seek(source.offset)
        while size and (chunk := file.read(min(1 << 20, size))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def resume_at(transport: "Transport", source: Section, remote: str) -> int:
    """Bytes of `source` that an earlier try left in the device's file `remote`: 0 unless size and sum say so."""
    asked = transport.run(["sh", "-c", '[ -f "$1" ] && wc -c <"$1" && sha256sum <"$1"', "sh", remote], timeout_s=600)
    words = asked.stdout.split()
    if asked.code or len(words) < 2 or not words[0].isdigit():
        return 0
    size = int(words[0])
    if not 0 < size <= source.size or prefix_sum(source, size) != words[1]:
        return 0
    return size


def seconds_to_send(transport: "Transport", size: int) -> float | None:
    """How long `size` bytes take at most, where the way knows its own rate: a serial line does, a network does not."""
    return size / transport.bytes_per_s if transport.bytes_per_s else None


class Transport(Protocol):
    """A device within reach. Every method raises TransportError when the device or the way to it fails."""

    url: str  # as given, for messages
    root: str  # the folder of edgebit on the device, absolute or counted from the login folder
    bytes_per_s: float | None = None  # of files that are put, where the way knows its own rate

    def run(self, argv: Sequence[str], *, input: bytes | None = None, timeout_s: float = 60) -> Completed:
        """Run a program on the device and wait. A non-zero exit code is no error here."""

    def put(self, source: Section, remote: str, progress: Progress | None = None) -> None:
        """Copy bytes into the file `remote` of an existing folder; what an earlier try left there is continued."""

    def get(self, remote: str, local: Path) -> None:
        """Copy a file of the device into the new local file `local`."""

    def close(self) -> None:
        """Let the device go; the object is of no use afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may say about the way to a device beyond its URL."""

    root: str | None = None  # folder on the device, before the one in the URL
    ssh_config: Path | None = None  # OpenSSH's -F
    ssh_options: tuple[str, ...] = field(default=())  # OpenSSH's -o, each "Name=value"
    serial_password_file: Path | None = None  # its first line is the password at a console


Opener = Callable[[str, Options], Transport]


def _open_local(url: str, options: Options) -> Transport:
    from edgebit.transport.local import LocalTransport

    return LocalTransport.from_url(url, options)


def _open_ssh(url: str, options: Options) -> Transport:
    from edgebit.transport.ssh import SshTransport

    return SshTransport.from_url(url, options)


def _open_serial(url: str, options: Options) -> Transport:
    from edgebit.transport.serial_port import SerialTransport

    return SerialTransport.from_url(url, options)


def _open_adb(url: str, options: Options) -> Transport:
    from edgebit.transport.adb import AdbTransport

    return AdbTransport.from_url(url, options)


TRANSPORTS: Mapping[str, tuple[Opener, str]] = {
    "ssh": (_open_ssh, "ssh://[USER@]HOST[:PORT][/FOLDER]"),
    "serial": (_open_serial, "serial:///dev/ttyUSB0[?baud=115200&user=USER]"),
    "rfc2217": (_open_serial, "rfc2217://HOST:PORT[?baud=115200&user=USER]"),
    "socket": (_open_serial, "socket://HOST:PORT[?baud=115200&user=USER]"),
    "adb": (_open_adb, "adb://[PACKAGE@][SERIAL][/FOLDER]"),
    "local": (_open_local, "local:FOLDER"),
}

# As people call a device for ssh and scp: [USER@]HOST, and then a port or a folder.
_HOST = re.compile(r"((?:[\w.-]+@)?\w[\w.-]*)(?:(:[0-9]+)|:([^:]*))?")


def open_transport(url: str, options: Options | None = None) -> Transport:
    """Connect to the device that `url` names; its scheme chooses the row of TRANSPORTS.

    Raises TransportError for a scheme that does not exist, a malformed URL, or a device out of reach.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in TRANSPORTS:
        raise TransportError(no_way(url))
    opener, _ = TRANSPORTS[scheme]
    return opener(url, options or Options())


def no_way(url: str) -> str:
    """What to say of a text that names no way to a device: what was probably meant, or else all that may be written."""
    meant = _probably_meant(url)
    if meant is not None:
        return f"{url!r} names no way to a device. Did you mean {meant}?"
    return f"{url!r} names no way to a device. Write {' or '.join(form for _, form in TRANSPORTS.values())}"


def _probably_meant(url: str) -> str | None:
    scheme, colon, rest = url.partition(":")
    near = difflib.get_close_matches(scheme.lower(), TRANSPORTS, n=1, cutoff=0.65)
    if near and "@" not in scheme:
        return f"{near[0]}:{rest}" if colon and rest.strip("/") else None
    if rest.startswith("//"):
        return None
    if url.startswith("/dev/"):
        return f"serial://{url}"
    if url.startswith((".", "/", "~")) or (url and "@" not in url and Path(url).is_dir()):
        return f"local:{url}"
    found = _HOST.fullmatch(url)
    if found is None:
        return None
    login, port, folder = found.groups(default="")
    if folder and "@" not in login and "." not in login:
        return None  # rather a scheme than a host
    if folder and not folder.startswith("/"):  # of the login folder, as scp takes it
        folder = f"/~/{folder.removeprefix('~/')}"
    return f"ssh://{login}{port}{folder}"
