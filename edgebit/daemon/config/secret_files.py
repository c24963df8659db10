"""Secrets: files that only the daemon's user reads, or systemd's credentials; never the configuration itself."""

import os
import stat
from pathlib import Path

from edgebit.errors import ConfigError

CREDENTIAL = "credential:"  # "credential:mqtt.password" is $CREDENTIALS_DIRECTORY/mqtt.password
SECRET_WORDS = ("password", "passwd", "passphrase", "secret")  # of keys that somebody may try to put a secret into


def located(name: str) -> Path | None:
    """Where a credential lies that `name` speaks of; None for an ordinary file's name. Raises ConfigError."""
    if not name.startswith(CREDENTIAL):
        return None
    credential = name.removeprefix(CREDENTIAL)
    if not credential or "/" in credential or credential.startswith("."):
        raise ConfigError(f"{name!r} names no credential: write {CREDENTIAL}NAME, as in LoadCredential=NAME:FILE")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ConfigError(f"{name!r}: systemd gave no credentials. The unit needs LoadCredential={credential}:FILE")
    return Path(folder) / credential


def too_open(path: Path) -> str | None:
    """Who else may read a secret's file, in words; None where nobody."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH) == 0:
        return None
    who = "everybody" if mode & (stat.S_IROTH | stat.S_IWOTH) else "its group"
    return f"{path} holds a secret and is open to {who} (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}"


def read_secret(path: str, key: str) -> str:
    """The file's first line. Raises ConfigError; `key` names the setting, and the secret stands in no message."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{key} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key} {path} is not UTF-8") from error
    if not lines or not lines[0]:
        raise ConfigError(f"{key} {path} is empty: its first line is the secret")
    return lines[0]
