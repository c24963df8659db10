"""Text as rules see it: compatibility forms, case, invisible characters and runs of blanks made one.

Every character is folded by itself, but for marks, which are put in Unicode's order once the next letter has come, and
blanks, of which a run becomes one. So it does not matter in which pieces a text comes.
"""

import unicodedata

# Unicode's format characters (zero-width space and joiners, soft hyphen, directions) are invisible; so are these.
_INVISIBLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


def fold_character(character: str) -> str:
    """What one character becomes: none, one or several characters; blanks become " "."""
    found = _CACHE.get(character)
    if found is None:
        found = _fold(character)
        if len(_CACHE) < _CACHE_MAX:
            _CACHE[character] = found
    return found


def fold(text: str) -> str:
    """A whole text, as Folder gives it piece by piece."""
    folder = Folder()
    return "".join(part for part, _ in [*folder.push(text, 0), *folder.finish()])


class Folder:
    """Folds a text that comes in pieces."""

    __slots__ = ("_after_blank", "_marks")

    def __init__(self) -> None:
        self._marks: list[tuple[str, int]] = []  # combining marks whose order is not settled
        self._after_blank = False

    def push(self, text: str, position: int) -> list[tuple[str, int]]:
        """Folded characters that are settled now, each with the place in the text it comes from; `text` is at
        `position`."""
        found: list[tuple[str, int]] = []
        for place, character in enumerate(text, position):
            for part in fold_character(character):
                if part > "\u02ff" and unicodedata.combining(part):
                    self._marks.append((part, place))
                    continue
                if self._marks:
                    found += self._settled()
                if part != " " or not self._after_blank:
                    found.append((part, place))
                self._after_blank = part == " "
        return found

    def finish(self) -> list[tuple[str, int]]:
        """What is left at the text's end."""
        return self._settled()

    @property
    def unsettled(self) -> int | None:
        """The place of the first character that is held back; None where none is."""
        return min((place for _, place in self._marks), default=None)

    def _settled(self) -> list[tuple[str, int]]:
        marks = sorted(self._marks, key=lambda mark: unicodedata.combining(mark[0]))
        if marks:
            self._after_blank = False
        self._marks = []
        return marks


_CACHE: dict[str, str] = {}
_CACHE_MAX = 4096  # characters; more than one script has that is written in letters


def _fold(character: str) -> str:
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(
        " " if part.isspace() else part
        for part in parts
        if ord(part) not in _INVISIBLE
        and (unicodedata.category(part) not in ("Cf", "Cc", "Cs", "Cn") or part.isspace())
    )
