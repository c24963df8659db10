"""Regular expressions that a rule may be: a part of Python's, whose longest match and worst time are known beforehand.

Python's own engine tries again and again where a pattern is ambiguous, in time that may grow without a bound. So what
repeats must say how often at most, nothing that varies may stand inside what repeats, and the number of ways in which a
pattern can be tried at one place is counted and bounded. What is known of every pattern: `width`, the characters of its
longest match, which a streamed answer holds back.
"""

import re
from dataclasses import dataclass

from edgebit.errors import ConfigError

WIDTH_MAX = 256
WAYS_MAX = 1100  # in which a pattern can be tried at one place
_REPEAT = re.compile(r"\{(\d{1,3})(?:,(\d{1,3}))?\}")
_CLASS_ESCAPES = "dDwWsS"


@dataclass(frozen=True, slots=True)
class _Size:
    """What a part of a pattern comes to."""

    width: int  # characters of its longest match
    ways: int  # in which it can be tried
    fixed: bool  # it holds no choice and no repetition


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern and its longest match."""

    compiled: re.Pattern[str]
    width: int


def compile_pattern(text: str) -> Pattern:
    """A pattern that ignores case. Raises ConfigError with what is not allowed, and where in the pattern."""
    reader = _Reader(text)
    size = reader.choices()
    if reader.place < len(text):
        raise reader.refuse("this ) closes nothing")
    if not 1 <= size.width <= WIDTH_MAX:
        raise ConfigError(f"its longest match has {size.width} characters; 1 to {WIDTH_MAX} are possible")
    if size.ways > WAYS_MAX:
        raise ConfigError(f"it can be tried in {size.ways} ways at one place, at most {WAYS_MAX} are possible")
    try:
        compiled = re.compile(text, re.IGNORECASE)
    except (re.error, OverflowError) as error:
        raise ConfigError(f"it is no regular expression: {error}") from error
    if compiled.match(""):
        raise ConfigError("it matches an empty text, and so every text")
    return Pattern(compiled, size.width)


class _Reader:
    """Reads choices, sequences and items of a pattern from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0

    def refuse(self, why: str) -> ConfigError:
        """The error for what stands at the present place."""
        return ConfigError(f"{why} (at character {self.place + 1} of the pattern)")

    def choices(self) -> _Size:
        """One sequence or several with | between them, up to the end or a closing bracket."""
        found = [self._sequence()]
        while self._peek() == "|":
            self.place += 1
            found.append(self._sequence())
        if len(found) == 1:
            return found[0]
        return _Size(max(size.width for size in found), sum(size.ways for size in found), False)

    def _peek(self) -> str:
        return self.text[self.place : self.place + 1]

    def _sequence(self) -> _Size:
        width, ways, fixed = 0, 1, True
        while self._peek() not in ("", "|", ")"):
            size = self._repeated(self._item())
            width, ways, fixed = width + size.width, ways * size.ways, fixed and size.fixed
            if width > 100 * WIDTH_MAX or ways > 1000 * WAYS_MAX:
                raise self.refuse("the pattern is too large")
        return _Size(width, ways, fixed)

    def _item(self) -> _Size:
        character = self._peek()
        if character == "(":
            return self._group()
        if character == "[":
            return self._class()
        if character == "\\":
            return self._escape()
        if character in "*+?{":
            raise self.refuse(f"there is nothing for {character} to repeat")
        if character in "^$":
            raise self.refuse(f"{character} has no meaning in a text that comes in pieces: use \\b")
        self.place += 1
        return _Size(1, 1, True)

    def _group(self) -> _Size:
        self.place += 1
        if self._peek() == "?":
            if not self.text.startswith("?:", self.place):
                raise self.refuse("of groups there are (...) and (?:...)")
            self.place += 2
        size = self.choices()
        if self._peek() != ")":
            raise self.refuse("a ) is missing")
        self.place += 1
        return size

    def _class(self) -> _Size:
        self.place += 1
        if self._peek() == "^":
            self.place += 1
        first = True
        while first or self._peek() != "]":
            if self._peek() == "":
                raise self.refuse("a ] is missing")
            self.place += 2 if self._peek() == "\\" else 1
            first = False
        self.place += 1
        return _Size(1, 1, True)

    def _escape(self) -> _Size:
        self.place += 1
        character = self._peek()
        if character in ("b", "B"):
            self.place += 1
            return _Size(0, 1, True)
        if not character or (character.isalnum() and character not in _CLASS_ESCAPES):
            raise self.refuse("of escapes there are \\b \\B \\d \\D \\w \\W \\s \\S and those of signs")
        self.place += 1
        return _Size(1, 1, True)

    def _repeated(self, size: _Size) -> _Size:
        sign = self._peek()
        if sign in ("*", "+"):
            mend = "{0,20}" if sign == "*" else "{1,20}"
            raise self.refuse(f"{sign} has no end: say how often at most, such as {mend}")
        if sign == "?":
            least, most = 0, 1
            self.place += 1
        elif (match := _REPEAT.match(self.text, self.place)) is not None:
            least = int(match[1])
            most = least if match[2] is None else int(match[2])
            self.place = match.end()
        elif sign == "{":
            raise self.refuse("a repetition is {N} or {N,M}, with N and M of at most three digits")
        else:
            return size
        if self._peek() == "?":
            self.place += 1  # as few as possible: the same matches in another order
        if self._peek() in ("*", "+", "?", "{"):
            raise self.refuse("a repetition of a repetition")
        if least > most:
            raise self.refuse(f"{{{least},{most}}} is the wrong way round")
        if not size.fixed and most > 1:
            raise self.refuse("what repeats may hold no repetition and no |")
        ways = (most - least + 1) if size.fixed else size.ways + 1 - least
        return _Size(size.width * most, ways, size.fixed and least == most)
