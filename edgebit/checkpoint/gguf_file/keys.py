"""The keys of a GGUF file's architecture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgebit.checkpoint.checked_keys import CheckedKeys
from edgebit.checkpoint.gguf_file.metadata import Value
from edgebit.errors import CheckpointError


class Keys(CheckedKeys):
    """The keys that begin with an architecture's name, without it."""

    def __init__(self, path: Path, fields: Mapping[str, Value], prefix: str) -> None:
        self._path, self._fields, self._prefix = path, fields, prefix

    def fault(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {self._prefix}.{key} {what}")

    def get(self, key: str) -> Value | None:
        return self._fields.get(f"{self._prefix}.{key}")

    def count(self, key: str, most: int, default: int | None = None) -> int:
        """See CheckedKeys.count(); there may be one for each layer, where all are the same."""
        value = self.get(key)
        if not isinstance(value, np.ndarray):
            return super().count(key, most, default)
        if not value.size or (value != value.flat[0]).any():
            raise self.fault(key, "differs from layer to layer, which edgebit does not know")
        return self.as_count(key, value.flat[0].item(), most)
