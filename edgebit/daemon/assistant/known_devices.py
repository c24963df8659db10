"""The devices that a house has, and which of them a name means that a model has copied from what was said."""

import difflib
import re
from collections.abc import Iterable

ALIKE = 0.8  # of difflib's ratio: two wrong letters in ten, and not another room
_NUMBER = re.compile(r"\d+")


class KnownDevices:
    """By name; upper and lower case are the same."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.casefold(): name for name in names}

    def __bool__(self) -> bool:
        return bool(self._names)

    def meant_by(self, name: str) -> str | None:
        """The device of this name, or the only one whose name is close to it, with the same numbers; None: none is."""
        given = name.casefold()
        if given in self._names:
            return self._names[given]
        same_numbers = [each for each in self._names if _NUMBER.findall(each) == _NUMBER.findall(given)]
        close = difflib.get_close_matches(given, same_numbers, n=2, cutoff=ALIKE)
        return self._names[close[0]] if len(close) == 1 else None
