"""Names of principals as logs and metrics show them: a keyed hash, whose key never leaves the device."""

import hashlib
import logging
import os
import secrets
from pathlib import Path

log = logging.getLogger("edgebit.privacy")

KEY_BYTES = 32
SHARED = "(everyone)"  # no principal's name: who is counted where nobody can be told from another (auth = "open")


class HashedNames:
    """The same name gives the same hash for as long as the key file is there; without the key no name can be tried.

    The key is made on the first start, at mode 0600. Where it cannot be kept, hashes hold until the restart.
    """

    def __init__(self, key_file: Path) -> None:
        self._key = _read_or_make(key_file)

    def of(self, principal: str) -> str:
        """12 hexadecimal digits behind "p-"; the shared bucket of an open broker is nobody's name, and stays."""
        if principal == SHARED:
            return SHARED
        return "p-" + hashlib.blake2b(principal.encode(errors="replace"), key=self._key, digest_size=6).hexdigest()


def _read_or_make(path: Path) -> bytes:
    try:
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return key
        log.warning("%s is damaged: hashed names change from here on", path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s cannot be read, hashed names hold until the restart: %s", path, error)
        return secrets.token_bytes(KEY_BYTES)
    key = secrets.token_bytes(KEY_BYTES)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        part.touch(0o600, exist_ok=False)
        with part.open("wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        log.warning("%s cannot be written, hashed names hold until the restart: %s", path, error)
    return key
