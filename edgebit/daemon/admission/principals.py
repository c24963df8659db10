"""principals.toml: public keys and own limits of single principals, read anew when the file changes."""

import base64
import binascii
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebit.bundle.ed25519 import is_sound_key
from edgebit.bundle.signature import parse_public_key
from edgebit.daemon.config.watched_file import WatchedFile
from edgebit.daemon.contract.topics import is_principal
from edgebit.errors import BundleError, ConfigError

log = logging.getLogger("edgebit.principals")

UNITS = ("requests", "tokens", "joules")
FILE_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """What the file says of one name; a limit of None is as [rate_limits] has it, 0 is none."""

    keys: tuple[bytes, ...] = ()
    limits: Mapping[str, float | None] = field(default_factory=dict)  # by unit


NOBODY = Principal()


def parse_principals(text: str, where: str) -> dict[str, Principal]:
    """The principals of a file's text. Raises ConfigError naming the section and the key."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    return {name: _principal(name, section, f"{where}: [{name}]") for name, section in content.items()}


class Principals:
    """The file's content, or none of it where there is no file."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError where the file is wrong; a file that becomes wrong later leaves what was read before."""
        self._file = WatchedFile(Path(path), parse_principals, FILE_MAX_BYTES) if path else None

    def __len__(self) -> int:
        return len(self._file.content) if self._file is not None else 0

    def get(self, name: str) -> Principal:
        """What the file says of `name`."""
        return self._file.content.get(name, NOBODY) if self._file is not None else NOBODY

    def reload(self) -> None:
        """Read the file again if it has changed."""
        if self._file is not None:
            self._file.reload()

    @property
    def fault(self) -> str | None:
        """Why the file as it is now is not used; None where it is."""
        return self._file.fault if self._file is not None else None


def _principal(name: str, section: Any, where: str) -> Principal:
    if not is_principal(name) or not isinstance(section, dict):
        raise ConfigError(f"{where} must be a section, named by a principal: letters, digits, '_', '.', '@' and '-'")
    known = ("key", *UNITS)
    if unknown := sorted(set(section) - set(known)):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(known)}")
    given = section.get("key", [])
    keys = [given] if isinstance(given, str) else given
    if not isinstance(keys, list) or len(keys) > 8:
        raise ConfigError(f"{where}: key must be a string, or a list of at most 8")
    limits: dict[str, float | None] = {}
    for unit in UNITS:
        value = section.get(unit)
        if value is not None and (type(value) not in (int, float) or not 0 <= value < 1e15):
            raise ConfigError(f"{where}: {unit} must be a number from 0 on, not {value!r}")
        limits[unit] = None if value is None else float(value)
    return Principal(keys=tuple(_key(item, where) for item in keys), limits=limits)


def _key(text: Any, where: str) -> bytes:
    """A public key as `edgebit keys` shows it (minisign's line, which begins with RW), or its 32 bytes alone."""
    if isinstance(text, str) and text.startswith("RW") and len(text) > 44:
        try:
            return parse_public_key(text, f"{where}: key").point
        except BundleError as error:
            raise ConfigError(str(error)) from error
    try:
        key = base64.b64decode(text, validate=True)
    except (TypeError, binascii.Error, ValueError):
        key = b""
    if not is_sound_key(key):
        words = "is no Ed25519 public key: the line of `edgebit keys list` that begins with RW, or base64 of 32 bytes"
        raise ConfigError(f"{where}: key {text!r} {words}")
    return key
