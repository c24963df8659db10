"""Numbers that a person has said and that did not reach the call: a small model reads 250 as 25.

Where the line has a number that the call lacks, and the call one that the line lacks, and both begin with one digit, as
what is misread does, the call is not what was meant. A line with a number in words is let through: "forty" may have
become 40. So is half a degree where the call has room for whole ones alone, and "1.5 hours" as 1 hour 30 minutes.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

# A unit may follow at once; within words, times of day and fractions ("tv2", "19:30", "1/2") there is none.
_NUMBER = re.compile(r"(?<![\w.:/])-?\d{1,12}(?:\.\d{1,6})?(?![\d:/])")
_MOST = 16  # numbers of a line or a call: more are no command
_SPELLINGS = (
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),  # 1,200
    (re.compile(r"(?<=\d),(?=\d{1,2}(?!\d))"), "."),  # 21,5
    (re.compile(r"[\u2212\u2013](?=\d)"), "-"),
)
# "minus" may be a sign or, for a timer, what to do.
_IN_WORDS = re.compile(
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|half|quarters?|thirds?|full|max|maximum|minus)\b",
    re.IGNORECASE,
)


def misheard(line: str, call: Mapping[str, Any]) -> tuple[str, str] | None:
    """A number of `line`, and what became of it in `call`; None: nothing shows that one was misread."""
    said = _numbers(line)
    understood = [(number, value) for value in _values(call) for number in _numbers(value)]
    if len(said) > _MOST or len(understood) > _MOST or _IN_WORDS.search(line):
        return None
    known, meant = set(map(float, said)), {float(number) for number, _ in understood}
    lost = [number for number in said if float(number) not in meant]
    invented = [(number, value) for number, value in understood if float(number) not in known]
    return next(
        (
            (one, other)
            for one, (other, value) in product(lost, invented)
            if _first(one) == _first(other) and not _is_near(one, value)
        ),
        None,
    )


def _numbers(value: str | float) -> list[str]:
    """The numbers of a text, or the one that a value is, as they are written."""
    text = str(value)
    for spelling, plain in _SPELLINGS:
        text = spelling.sub(plain, text)
    found: list[str] = _NUMBER.findall(text)
    return found


def _first(number: str) -> str:
    return number.lstrip("-")[0]


def _is_near(said: str, value: str | float) -> bool:
    """Whether a value may be all that a call can make of a fraction."""
    if float(said).is_integer():
        return False
    if isinstance(value, str):
        return len(_numbers(value)) > 1
    return value != 0 and abs(float(said) - value) < 1


def _values(value: Any) -> Iterator[str | float]:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _values(item)
    elif isinstance(value, list):
        for item in value:
            yield from _values(item)
