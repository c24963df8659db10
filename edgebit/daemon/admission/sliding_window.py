"""How much was spent within the last so many seconds, in a fixed number of slots."""

import math
from array import array

SLOTS = 12


class SlidingWindow:
    """Amounts of the last `window_s` seconds, in slots of a twelfth of that.

    A slot counts until its youngest moment is older than the window: no stretch of `window_s` seconds ever holds more
    than what total() has been kept to, and an amount is forgotten at most a twelfth of the window late.
    """

    __slots__ = ("_amounts", "_newest", "_slot_s")

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / SLOTS
        self._amounts = array("d", bytes(8 * (SLOTS + 1)))  # a ring by slot number
        self._newest = -(1 << 62)  # the number of the youngest slot seen

    def add(self, now: float, amount: float) -> None:
        """Note what was spent at `now`; clocks that are monotonic only, in seconds."""
        slot = self._advance(now)
        self._amounts[slot % (SLOTS + 1)] += amount

    def give_back(self, then: float, amount: float) -> None:
        """Take back a part of what was noted at `then`; nothing where that is forgotten already."""
        slot = math.floor(then / self._slot_s)
        if slot >= self._newest - SLOTS:
            place = slot % (SLOTS + 1)
            self._amounts[place] = max(0.0, self._amounts[place] - amount)

    def total(self, now: float) -> float:
        """What counts at `now`."""
        self._advance(now)
        return math.fsum(self._amounts)

    def wait_s(self, now: float, room: float) -> float:
        """Seconds from `now` until at most `room` counts, if nothing is added; 0 where that is so now.

        `room` must not be negative: then no wait would do.
        """
        if self.total(now) <= room:
            return 0.0
        newest = self._newest
        for slot in range(newest - SLOTS, newest + 1):
            younger = math.fsum(self._amounts[number % (SLOTS + 1)] for number in range(slot + 1, newest + 1))
            if younger <= room:
                return (slot + SLOTS + 1) * self._slot_s - now
        raise AssertionError(f"room must not be negative: {room}")

    def _advance(self, now: float) -> int:
        """Forget what is too old; gives the slot of `now`."""
        slot = max(math.floor(now / self._slot_s), self._newest)
        for number in range(max(self._newest + 1, slot - SLOTS), slot + 1):
            self._amounts[number % (SLOTS + 1)] = 0.0
        self._newest = slot
        return slot
