"""Values under keys, as configurations and metadata give them, each checked as it is taken."""

import sys
from abc import ABC, abstractmethod
from typing import Any

from edgebit.errors import CheckpointError


class CheckedKeys(ABC):
    """All methods that give a value raise CheckpointError naming file and key."""

    @abstractmethod
    def fault(self, key: str, what: str) -> CheckpointError:
        """What is wrong with a key's value, as an error that names its place."""

    @abstractmethod
    def get(self, key: str) -> Any:
        """The value as it is; None: there is none."""

    def count(self, key: str, most: int, default: int | None = None) -> int:
        """A whole number from 1 to `most`."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        return self.as_count(key, value, most)

    def as_count(self, key: str, value: object, most: int) -> int:
        """The value, found under the key, as such a number."""
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.fault(key, f"is {value!r}; a whole number from 1 to {most} is needed")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        number = finite_number(value)
        if number is None or number <= 0:
            raise self.fault(key, f"is {value!r}; a number above 0 is needed")
        return number


def finite_number(value: object) -> float | None:
    """None: it is no number, or none that a float can be."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -sys.float_info.max <= value <= sys.float_info.max else None
