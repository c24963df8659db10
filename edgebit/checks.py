"""What a check of anything says: its name, how it went, and why."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    status: Status
    detail: str


def verdict(name: str, ok: bool, good: str, bad: str) -> Check:
    """A check that ran."""
    return Check(name, "passed" if ok else "failed", good if ok else bad)


def some_of(names: list[str]) -> str:
    """The first few, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
