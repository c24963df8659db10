"""Keys of a terminal, and what they do to the view. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgebit.monitor.fleet import SORTINGS

# What terminals send, in both of their modes; the letters are vi's.
_KEYS = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\x1b[5~": "page_up",
    b"\x1b[6~": "page_down",
    b" ": "page_down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"g": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"G": "end",
    b"\r": "open",
    b"\n": "open",
    b"\x1b[C": "open",
    b"\x1bOC": "open",
    b"\x1b": "back",
    b"\x7f": "back",
    b"\x1b[D": "back",
    b"\x1bOD": "back",
    b"s": "sort",
    b"r": "reverse",
    b"q": "quit",
    b"Q": "quit",
}
_ONE = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[@-~])|[\x00-\xff]")
_BEGUN = re.compile(rb"\x1b(?:[\[O][0-9;?]*)?\Z")


class KeyReader:
    """Puts the bytes of a terminal together to keys."""

    def __init__(self) -> None:
        self._begun = b""

    @property
    def is_begun(self) -> bool:
        """Whether a key may go on: an Escape is one, or the first byte of another."""
        return bool(self._begun)

    def read(self, data: bytes) -> list[str]:
        """Names of the keys pressed; without data, what was begun stands for itself: Escape alone."""
        waiting = self._begun + data
        self._begun = b""
        if data and (begun := _BEGUN.search(waiting)) is not None and len(waiting) - begun.start() < 16:
            waiting, self._begun = waiting[: begun.start()], waiting[begun.start() :]
        return [_KEYS[key] for key in _ONE.findall(waiting) if key in _KEYS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is chosen in the view. The selection follows the device, wherever the order takes it."""

    sort: str = "name"
    reverse: bool = False
    selected: str = ""  # a device's name; empty: the first
    detail: bool = False  # the selected device alone


def pressed(choice: Choice, key: str, names: Sequence[str], page: int) -> Choice | None:
    """The choice after a key; None: to quit. names: in their order; page: how many of them are shown."""
    if key == "quit":
        return None
    if key == "sort":
        sorts = list(SORTINGS)
        return replace(choice, sort=sorts[(sorts.index(choice.sort) + 1) % len(sorts)], reverse=False)
    if key == "reverse":
        return replace(choice, reverse=not choice.reverse)
    if key == "back":
        return replace(choice, detail=False)
    if not names:
        return choice
    place = place_of(choice, names)
    if key == "open":
        return replace(choice, selected=names[place], detail=True)
    moves = {"up": -1, "down": 1, "page_up": -page, "page_down": page, "home": -len(names), "end": len(names)}
    return replace(choice, selected=names[min(max(place + moves.get(key, 0), 0), len(names) - 1)])


def place_of(choice: Choice, names: Sequence[str]) -> int:
    """Where the selected device stands; the first if it is not there."""
    return names.index(choice.selected) if choice.selected in names else 0
