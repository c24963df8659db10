"""The keys of a GGUF file's architecture, each value checked as it is taken."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgebit.checkpoint.gguf_file.metadata import Value
from edgebit.errors import CheckpointError


class Keys:
    """The keys of a file, each checked as it is taken."""

    def __init__(self, path: Path, fields: Mapping[str, Value], prefix: str) -> None:
        self._path, self._fields, self._prefix = path, fields, prefix

    def fault(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {self._prefix}.{key} {what}")

    def get(self, key: str) -> Value | None:
        return self._fields.get(f"{self._prefix}.{key}")

    def count(self, key: str, most: int, default: int | None = None) -> int:
        """A whole number from 1 on; one for each layer where all are the same."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, np.ndarray):
            if not value.size or (value != value.flat[0]).any():
                raise self.fault(key, "differs from layer to layer, which edgebit does not know")
            value = value.flat[0].item()
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.fault(key, f"is {value!r}; a whole number from 1 to {most} is needed")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        if value is None and default is not None:
            return default
        number = as_number(value)
        if number is None or number <= 0:
            raise self.fault(key, f"is {value!r}; a number above 0 is needed")
        return number


def as_number(value: Value | None) -> float | None:
    """None: it is no number, or not finite."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and isinstance(value, int | float) else None
