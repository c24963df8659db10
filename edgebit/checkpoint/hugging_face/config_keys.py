"""The values of a configuration file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebit.checkpoint.checked_keys import CheckedKeys
from edgebit.errors import CheckpointError


class ConfigKeys(CheckedKeys):
    """A JSON object of a configuration file."""

    def __init__(self, path: Path, values: Mapping[str, Any], inside: str = "") -> None:
        """`inside`: the key of the file that holds this object."""
        self.path, self._values, self._inside = path, values, f"{inside}." if inside else ""

    def fault(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {self._inside}{key} {what}")

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def part(self, key: str) -> "ConfigKeys | None":
        """The object under a key; None where there is none."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fault(key, "is no object")
        return ConfigKeys(self.path, value, f"{self._inside}{key}")

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, f"is {value!r}; true or false is needed")
        return value

    def token_ids(self, key: str, vocab_size: int) -> list[int]:
        value = self.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        for token in ids:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
                raise self.fault(key, f"holds {token!r}; ids from 0 to {vocab_size - 1} are known")
        return ids
