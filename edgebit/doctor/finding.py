"""What the doctor found: a name, a state, what was seen, and the mend in one line."""

from dataclasses import dataclass
from typing import Literal

from edgebit.errors import EdgebitError

State = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    group: str  # "this machine", "the device", "its daemon"
    name: str
    state: State  # fail: edgebit does not work so. warn: a part of it does not, or not well
    detail: str  # what was seen
    mend: str = ""  # what to do about it; empty where there is nothing to do


def of_error(group: str, name: str, error: EdgebitError, state: State = "fail") -> Finding:
    """An error as a finding: its first sentence says what is wrong, the others how to mend it."""
    lines = str(error).splitlines()
    detail, _, mend = lines[0].partition(". ")
    return Finding(group, name, state, detail, mend)
