"""Files of sysfs and procfs below a root that tests can choose: read at once, whole, and never waited for."""

import os
import re
from pathlib import Path

from edgebit.daemon.sensors.reading import NotHere, Unreadable

_FILE_MAX = 65536  # bytes; no file of a sensor is larger
_LABEL_MAX = 64  # characters
_NUMBER = re.compile(r"[-+]?[0-9]{1,20}(\.[0-9]{1,20})?")


class DeviceFiles:
    """The device's files; names count from the root and have no slash before them: "proc/uptime"."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def text(self, name: str) -> str:
        """What the file says, without blanks around it. Raises NotHere where there is none, else Unreadable."""
        try:
            content = _read(self.root / name)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotHere(f"there is no {shown(name)}") from error
        except OSError as error:  # asleep (EAGAIN), unplugged (EIO, ENODEV), forbidden
            raise Unreadable(f"{shown(name)} cannot be read: {error.strerror}") from error
        if len(content) > _FILE_MAX:
            raise Unreadable(f"{shown(name)} has more than {_FILE_MAX} bytes")
        try:
            text = content.decode().strip()
        except UnicodeDecodeError as error:
            raise Unreadable(f"{shown(name)} is not text") from error
        if not text:
            raise Unreadable(f"{shown(name)} is empty")
        return text

    def label(self, name: str) -> str:
        """The file's one word or two, fit to be said on. Raises NotHere, Unreadable."""
        text = self.text(name)
        if len(text) > _LABEL_MAX or not text.isprintable():
            raise Unreadable(f"{shown(name)} is no label")
        return text

    def number(self, name: str) -> float:
        """The file's one number. Raises Unreadable."""
        text = self.text(name)
        if not _NUMBER.fullmatch(text):
            raise Unreadable(f"{shown(name)} says {text[:40]!r}, which is no number")
        return float(text)

    def entries(self, folder: str, prefix: str = "") -> list[str]:
        """Files and folders in `folder` whose names begin with `prefix`; none where it cannot be listed."""
        try:
            names = sorted(path.name for path in (self.root / folder).iterdir())
        except OSError:
            return []
        return [f"{folder}/{name}" for name in names if name.startswith(prefix)]

    def link_name(self, name: str) -> str | None:
        """The last part of what the link points to, such as the address of a device on its bus."""
        try:
            return (self.root / name).readlink().name
        except OSError:
            return None

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.lexists(self.root / name)

    @property
    def is_real(self) -> bool:
        """Whether this is the machine itself, so that its programs may be asked too."""
        return self.root == Path("/")


def shown(name: str) -> str:
    """A file's name as messages have it."""
    return f"/{name}"


def _read(path: Path) -> bytes:
    """At most one byte more than _FILE_MAX. A pipe is not waited for: O_NONBLOCK."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = b""
        while len(content) <= _FILE_MAX and (piece := os.read(handle, _FILE_MAX + 1 - len(content))):
            content += piece
        return content
    finally:
        os.close(handle)
