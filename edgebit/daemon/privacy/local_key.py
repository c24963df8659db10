"""Random keys that a device makes for itself: 32 bytes in a file of mode 0600."""

import logging
import os
import secrets
from pathlib import Path

log = logging.getLogger("edgebit.privacy")

KEY_BYTES = 32
LOCAL_KEY = "local.key"  # in the state folder: who can read it may ask this device under any name
NAME_KEY = "name.key"  # there too: what names of principals are hashed with


def read_or_make_key(path: Path) -> bytes:
    """The key in `path`, made on the first call. Where it cannot be kept it holds until the restart, which is said."""
    try:
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return key
        log.warning("%s is damaged: another key is made", path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s cannot be read, another key holds until the restart: %s", path, error)
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
        log.warning("%s cannot be written, its key holds until the restart: %s", path, error)
    return key
