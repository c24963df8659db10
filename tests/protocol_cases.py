"""The cases of tests/daemon/protocol/cases, read and checked; its README says what they hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent / "daemon" / "protocol" / "cases"
VERSIONS = ("5", "3.1.1")
CASE_KEYS = {"name", "why", "versions", "needs", "settings", "broker_has", "steps"}
# A step has one of these keys, which says what it is, and what may stand beside it.
STEPS: dict[str, set[str]] = {
    "send": {
        "payload", "text", "hex", "as", "reply", "ttl_s", "properties", "retain", "qos", "topic", "invalid", "error",
        "times",
    },
    "expect": {"as", "json", "text", "error", "properties", "lacks"},
    "stream": {"as", "text", "frames", "first", "last", "reversed", "reads_on", "properties", "lacks"},
    "text_stream": {"as", "text", "pieces"},
    "nothing": set(),
    "copies": {"topic"},
    "counted": set(),
    "wait_s": set(),
    "fault": {"topic", "as", "nth", "lost", "breaks"},
    "broker": set(),
    "caller": set(),
    "device": set(),
}  # fmt: skip
FAULTS = {"fault", "broker", "device"}  # steps for which the broker must be the tests' own


@dataclass(frozen=True, slots=True)
class Case:
    """One case in one version of MQTT."""

    file: str
    name: str
    version: str
    steps: tuple[dict[str, Any], ...]
    settings: dict[str, Any]
    broker: dict[str, Any]
    needs: frozenset[str]

    @property
    def name_in_file(self) -> str:
        return f"{self.file}: {self.name}"

    @property
    def id(self) -> str:
        return f"{self.name_in_file} [{self.version}]"

    @property
    def has_faults(self) -> bool:
        return any(FAULTS & set(step) for step in self.steps)

    @property
    def ends_device(self) -> bool:
        return any("device" in step for step in self.steps)


def read_cases() -> list[Case]:
    """All cases, each once for every version it is for. Raises AssertionError for a file that is not as described."""
    found = [case for path in sorted(FOLDER.glob("*.yaml")) for case in _read(path)]
    names = [case.id for case in found]
    assert len(names) == len(set(names)), f"names that stand twice: {sorted({n for n in names if names.count(n) > 1})}"
    return found


def _read(path: Path) -> Iterator[Case]:
    for number, given in enumerate(yaml.safe_load(path.read_text())):
        where = f"{path.name}, {given.get('name', number)}"
        whole = set(STEPS) & set(given)
        steps = [{key: given.pop(key) for key in list(given) if key not in CASE_KEYS}] if whole else given["steps"]
        assert set(given) <= CASE_KEYS, f"{where}: unknown {set(given) - CASE_KEYS}"
        checked = tuple(step for each in steps for step in _steps(each, where))
        for version in given.get("versions", VERSIONS):
            assert version in VERSIONS, f"{where}: version {version}"
            yield Case(
                path.stem,
                given["name"],
                version,
                checked,
                given.get("settings", {}),
                given.get("broker_has", {}),
                frozenset(given.get("needs", ())),
            )


def _steps(step: dict[str, Any], where: str) -> list[dict[str, Any]]:
    kinds = [kind for kind in STEPS if kind in step]
    kind = next((kind for kind in kinds if set(step) - {kind} <= STEPS[kind]), None)
    assert kind is not None, f"{where}: what is {step}?"
    if kind == "send" and "error" in step:  # the whole of many cases: what is sent, and the refusal
        step = dict(step)
        error = step.pop("error")
        return [step, {"expect": "$out/+", "error": error, **({"as": step["as"]} if "as" in step else {})}]
    return [step]


def fill(value: Any, names: dict[str, str]) -> Any:
    """A value of a case with $names in its strings filled in; what is no name of ours stays."""
    if isinstance(value, str):
        return Template(value).safe_substitute(names)
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, names) for key, item in value.items()}
    return value


def difference(given: Any, wanted: Any, where: str = "") -> str | None:
    """Where a value is not what a case wants; None where it is."""
    if isinstance(wanted, dict) and len(wanted) == 1 and next(iter(wanted)).startswith("~"):
        ((test, operand),) = wanted.items()
        return None if _holds(test, operand, given) else f"{where}: {given!r} is not {test} {operand!r}"
    if isinstance(wanted, dict):
        if not isinstance(given, dict):
            return f"{where}: {given!r} is no object"
        parts = (
            difference(given[key], item, f"{where}.{key}") if key in given else f"{where}.{key} is not there"
            for key, item in wanted.items()
        )
        return next((part for part in parts if part), None)
    if isinstance(wanted, list):
        if not isinstance(given, list) or len(given) != len(wanted):
            return f"{where}: {given!r} has not the {len(wanted)} items of {wanted!r}"
        parts = (difference(one, two, f"{where}[{n}]") for n, (one, two) in enumerate(zip(given, wanted, strict=True)))
        return next((part for part in parts if part), None)
    same = given == wanted and isinstance(given, bool) == isinstance(wanted, bool)
    return None if same else f"{where}: {given!r}, not {wanted!r}"


def _holds(test: str, operand: Any, given: Any) -> bool:
    if test == "~between":
        return isinstance(given, int | float) and operand[0] <= given <= operand[1]
    if test == "~like":
        return isinstance(given, str) and re.fullmatch(operand, given) is not None
    if test == "~words":
        return isinstance(given, str) and len(given.split()) == operand
    raise AssertionError(f"what is {test}?")


@dataclass(slots=True)
class Frames:
    """Frames of one answer, put together as docs/mqtt.md tells readers to: by `seq`, each once, until all are there."""

    by_seq: dict[int, dict[str, Any]] = field(default_factory=dict)
    copies: int = 0  # frames that came a second time

    def push(self, frame: dict[str, Any]) -> None:
        before = self.by_seq.get(frame["seq"])
        assert before is not None or not self.whole, f"{frame} comes after the last one"
        before = self.by_seq.setdefault(frame["seq"], frame)
        if before is not frame:
            assert before == frame, "a frame that is sent again is the same frame"
            self.copies += 1

    @property
    def whole(self) -> bool:
        last = max(self.by_seq, default=-1)
        return last >= 0 and bool(self.by_seq[last].get("done")) and len(self.by_seq) == last + 1

    @property
    def text(self) -> str:
        """Of the deltas; of the last frame where it is the only one, for a caller who did not ask for a stream."""
        deltas = [frame["d"] for _, frame in sorted(self.by_seq.items()) if frame["t"] == "delta"]
        return "".join(deltas) if deltas else str(self.by_seq[max(self.by_seq)].get("text", ""))
