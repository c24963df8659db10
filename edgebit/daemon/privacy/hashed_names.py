"""Names of principals as logs and metrics show them: a keyed hash, whose key never leaves the device."""

import hashlib
from pathlib import Path

from edgebit.daemon.privacy.local_key import read_or_make_key

SHARED = "(everyone)"  # no principal's name: who is counted where nobody can be told from another (auth = "open")


class HashedNames:
    """The same name gives the same hash for as long as the key file is there; without the key no name can be tried."""

    def __init__(self, key_file: Path) -> None:
        self._key = read_or_make_key(key_file)

    def of(self, principal: str) -> str:
        """12 hexadecimal digits behind "p-"; the shared bucket of an open broker is nobody's name, and stays."""
        if principal == SHARED:
            return SHARED
        return "p-" + hashlib.blake2b(principal.encode(errors="replace"), key=self._key, digest_size=6).hexdigest()
