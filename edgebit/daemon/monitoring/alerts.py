"""Alerts from figures: pure rules with two levels, hysteresis, and a time that a figure must stay beyond its threshold.

A level is raised once its figure has been beyond the threshold for `raise_s` without a break, and cleared once it has
been on the good side of the threshold by the margin for `clear_s`. In between, nothing changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgebit.daemon.monitoring.quantities import UNITS

Severity = Literal["info", "warning", "critical"]
RANK: dict[Severity | None, int] = {None: 0, "info": 1, "warning": 2, "critical": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One level of one alert. Rules of the same name are levels of one alert, of which the gravest counts."""

    name: str
    figure: str  # what is looked at
    severity: Severity
    threshold: float
    margin: float  # how far on the good side the figure must be before it clears; at least 0
    below: bool = False  # whether it is bad to be below the threshold rather than above
    raise_s: float = 60.0
    clear_s: float = 60.0
    unknown_clears: bool = False  # a figure that is not known counts as good; else it leaves all as it is

    def is_bad(self, value: float) -> bool:
        """Whether the value is beyond the threshold; the threshold itself is."""
        return value <= self.threshold if self.below else value >= self.threshold

    def is_good(self, value: float) -> bool:
        """Whether the value is on the good side by more than the margin."""
        if self.below:
            return value > self.threshold + self.margin
        return value < self.threshold - self.margin


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that is raised, or was just cleared."""

    rule: Rule  # the gravest level
    value: float | None
    since: float  # monotonic seconds: when the figure went beyond the threshold


@dataclass(frozen=True, slots=True)
class Change:
    """An alert was raised, has changed its severity, or was cleared."""

    alert: Alert
    state: Literal["raised", "cleared"]


@dataclass(slots=True)
class _Latch:
    """Where one rule stands."""

    raised: bool = False
    bad_since: float | None = None
    good_since: float | None = None
    since: float = 0.0  # while raised: when the figure went beyond
    value: float | None = None  # the last one known

    def step(self, rule: Rule, value: float | None, now: float) -> None:
        self.value = value if value is not None else self.value
        if value is None and not rule.unknown_clears:
            self.bad_since = self.good_since = None
            return
        bad = value is not None and rule.is_bad(value)
        good = value is None or rule.is_good(value)
        self.bad_since = (now if self.bad_since is None else self.bad_since) if bad else None
        self.good_since = (now if self.good_since is None else self.good_since) if good else None
        if not self.raised and self.bad_since is not None and now - self.bad_since >= rule.raise_s:
            self.raised, self.since = True, self.bad_since
        elif self.raised and self.good_since is not None and now - self.good_since >= rule.clear_s:
            self.raised = False


@dataclass(slots=True)
class Alerts:
    """All rules and where they stand; step() takes the figures of a moment and gives what has changed."""

    rules: Sequence[Rule]
    _latches: dict[Rule, _Latch] = field(default_factory=dict)
    _told: dict[str, Alert] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._latches = {rule: _Latch() for rule in self.rules}

    def step(self, figures: Mapping[str, float | None], now: float) -> list[Change]:
        """Look at the figures, which may lack some. `now` is in monotonic seconds and never goes back."""
        for rule, latch in self._latches.items():
            latch.step(rule, figures.get(rule.figure), now)
        changes = []
        for name in dict.fromkeys(rule.name for rule in self.rules):
            before, after = self._told.get(name), self._gravest(name)
            if after is not None:
                self._told[name] = after
                if before is None or before.rule.severity != after.rule.severity:
                    changes.append(Change(after, "raised"))
            elif before is not None:
                del self._told[name]
                changes.append(Change(Alert(before.rule, self._latches[before.rule].value, before.since), "cleared"))
        return changes

    def active(self) -> list[Alert]:
        """The alerts that are raised, gravest first."""
        return sorted(self._told.values(), key=lambda alert: (-RANK[alert.rule.severity], alert.rule.name))

    def _gravest(self, name: str) -> Alert | None:
        raised = [(rule, latch) for rule, latch in self._latches.items() if rule.name == name and latch.raised]
        if not raised:
            return None
        rule, latch = max(raised, key=lambda pair: RANK[pair[0].severity])
        since = min(latch.since for _, latch in raised)
        return Alert(rule, latch.value, since)


def body_of(alert: Alert, now: float, wall: float) -> dict[str, Any]:
    """The fields of an alert that are published. `now` is monotonic, `wall` the same moment in Unix seconds."""
    rule, value = alert.rule, None if alert.value is None else round(alert.value, 3)
    unit = UNITS.get(rule.figure, "1")
    words = "not known" if value is None else f"{value:g}" + ("" if unit == "1" else f" {unit}")
    beyond = "at or below" if rule.below else "from"
    return {
        "name": rule.name,
        "severity": rule.severity,
        "figure": rule.figure,
        "value": value,
        "limit": rule.threshold,
        "unit": unit,
        "since": round(wall - (now - alert.since)),
        "message": f"{rule.figure} is {words}; {rule.severity} {beyond} {rule.threshold:g}",
    }
