"""Many words looked for at once, in one step a character (Aho and Corasick 1975)."""

from array import array
from collections.abc import Sequence

ROOT = 0
_CHARACTER = (1 << 21) - 1  # every code point


class WordAutomaton:
    """States are whole numbers; a state stands for the longest end of the text that some word begins with."""

    __slots__ = ("_ends", "_fallback", "_next", "depth", "longest")

    def __init__(self, words: Sequence[str]) -> None:
        self._next: dict[int, int] = {}  # the state by that before and the character; one table takes least memory
        self._ends: dict[int, list[int]] = {}  # words by the state in which they end, longest first
        self.depth = array("H", [0])  # characters of the word's beginning that a state stands for
        parents: list[tuple[int, int]] = [(ROOT, 0)]  # of each state, with the character between
        for number, word in enumerate(words):
            state = ROOT
            for character in word:
                step = _step(state, character)
                found = self._next.get(step)
                if found is None:
                    found = self._next[step] = len(self.depth)
                    self.depth.append(self.depth[state] + 1)
                    parents.append((state, step))
                state = found
            self._ends.setdefault(state, []).append(number)
        self.longest = max(self.depth)
        self._fallback = array("I", bytes(4 * len(self.depth)))
        self._link(parents)

    def step(self, state: int, character: str) -> int:
        """The state after one more character."""
        while True:
            found = self._next.get(_step(state, character))
            if found is not None:
                return found
            if state == ROOT:
                return ROOT
            state = self._fallback[state]

    def words_at(self, state: int) -> Sequence[int]:
        """Numbers of the words that end here, the longest first."""
        return self._ends.get(state, ())

    def _link(self, parents: Sequence[tuple[int, int]]) -> None:
        """Fallbacks by depth: a state's own is shallower, and done before it."""
        for state in sorted(range(1, len(parents)), key=self.depth.__getitem__):
            parent, step = parents[state]
            if parent != ROOT:
                self._fallback[state] = self.step(self._fallback[parent], chr(step & _CHARACTER))
            shorter = self._ends.get(self._fallback[state])
            if shorter:
                self._ends.setdefault(state, []).extend(shorter)


def _step(state: int, character: str) -> int:
    return state << 21 | ord(character)
