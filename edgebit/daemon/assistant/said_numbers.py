"""Numbers that a person has said and that did not reach the call: a small model reads 250 as 25.

Where the line has a number that the call lacks, and the call one that the line lacks, and both begin with one digit, as
what is misread does, the call is not what was meant. Numbers in words are none here: "forty" may well have become 40.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

# A unit may follow at once; within words, times of day and fractions ("tv2", "19:30", "1/2") there is none.
_NUMBER = re.compile(r"(?<![\w.:/])-?\d{1,12}(?:\.\d{1,6})?(?![\d:/])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def misheard(line: str, call: Mapping[str, Any]) -> tuple[str, str] | None:
    """A number of `line`, and what became of it in `call`; None: nothing shows that one was misread."""
    said = {float(number): number for number in _numbers(line)}
    understood = {float(number): number for number in _numbers_within(call)}
    lost = [number for value, number in said.items() if value not in understood]
    invented = [number for value, number in understood.items() if value not in said]
    pairs = product(lost, invented)
    return next((pair for pair in pairs if pair[0].lstrip("-")[0] == pair[1].lstrip("-")[0]), None)


def _numbers(text: str) -> list[str]:
    found: list[str] = _NUMBER.findall(_THOUSANDS.sub("", text))
    return found


def _numbers_within(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _numbers(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers_within(item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers_within(item)
