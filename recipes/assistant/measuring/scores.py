"""Metrics of replies beside the calls that were asked for: exact match, intents, slots, refusals, confusions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from edgebit.daemon.assistant.said_numbers import misheard
from recipes.assistant.intents import Call
from recipes.assistant.measuring.replies import Reply


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with the Wilson interval of 95 %."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share; 0 of none."""
        return self.hits / self.of if self.of else 0.0

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """Least and most of the true share. Source: E. B. Wilson 1927, JASA 22 (158), pages 209 to 212."""
        if not self.of:
            return 0.0, 1.0
        p, n = self.value, self.of
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def as_json(self) -> dict[str, Any]:
        """The share with its interval."""
        low, high = self.interval()
        return {"hits": self.hits, "of": self.of, "share": round(self.value, 4),
                "low": round(low, 4), "high": round(high, 4)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """Pairs slot=value: found and right, found and wrong, not found."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def f1(self) -> float | None:
        """Micro F1; None where there was no slot at all."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else None


@dataclass(frozen=True, slots=True)
class Scores:
    """All metrics of one set of replies."""

    exact: Share
    intent: Share
    json: Share  # the text is a JSON object
    schema: Share  # and one that follows the schema
    say: Share  # of the replies with a call: the sentence is the template of that very call
    refused: Share
    slots: SlotCounts

    def as_json(self) -> dict[str, Any]:
        """All of them, for a file."""
        shares = {name: getattr(self, name).as_json() for name in
                  ("exact", "intent", "json", "schema", "say", "refused")}  # fmt: skip
        f1 = self.slots.f1
        return {**shares, "slots": {**asdict(self.slots), "f1": None if f1 is None else round(f1, 4)}}


def slot_counts(wanted: Sequence[Call], replies: Sequence[Reply]) -> SlotCounts:
    """Slots of all examples together, whatever the intent."""
    right = wrong = missed = 0
    for call, reply in zip(wanted, replies, strict=True):
        asked, found = _pairs(call), _pairs(reply.call or {})
        right += len(asked & found)
        wrong += len(found - asked)
        missed += len(asked - found)
    return SlotCounts(right, wrong, missed)


def _pairs(call: Call) -> set[tuple[str, str | int]]:
    return {(slot, value) for slot, value in call.items() if slot != "intent"}


def score(wanted: Sequence[Call], replies: Sequence[Reply]) -> Scores:
    """The metrics of replies to lines that ask for the calls `wanted`, in the same order."""
    pairs = list(zip(wanted, replies, strict=True))
    calls = [reply for reply in replies if reply.call is not None]
    return Scores(
        exact=Share(sum(reply.call == call for call, reply in pairs), len(pairs)),
        intent=Share(sum(reply.intent == call["intent"] for call, reply in pairs), len(pairs)),
        json=Share(sum(reply.is_json for reply in replies), len(pairs)),
        schema=Share(len(calls), len(pairs)),
        say=Share(sum(reply.says_its_call for reply in calls), len(calls)),
        refused=Share(sum(reply.refuses for reply in replies), len(pairs)),
        slots=slot_counts(wanted, replies),
    )


def by_intent(wanted: Sequence[Call], replies: Sequence[Reply]) -> dict[str, Share]:
    """Exact matches of each intent that was asked for."""
    hits: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for call, reply in zip(wanted, replies, strict=True):
        total[str(call["intent"])] += 1
        hits[str(call["intent"])] += reply.call == call
    return {intent: Share(hits[intent], count) for intent, count in sorted(total.items())}


def confusions(wanted: Sequence[Call], replies: Sequence[Reply]) -> Counter[tuple[str, str]]:
    """How often each intent was asked for and each was answered, right ones too."""
    return Counter((str(call["intent"]), reply.intent) for call, reply in zip(wanted, replies, strict=True))


def rightly_refused(lines: Sequence[str], wanted: Sequence[Call], replies: Sequence[Reply]) -> Share:
    """Of the calls that the daemon's `assist` refuses for a number that was not said, those that are wrong."""
    refused = [
        reply.call != call
        for line, call, reply in zip(lines, wanted, replies, strict=True)
        if reply.call is not None and misheard(line, reply.call)
    ]
    return Share(sum(refused), len(refused))
