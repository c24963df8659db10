"""Refusals in a file of their own: JSON lines, bounded in size, without names, payloads or floods.

A line tells when, which code, who (hashed) and which operation. The same again within a minute is counted and written
as one line, and so is what comes faster than the file should grow. Flash is worn by lines, not by attackers.
"""

import json
import logging
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger("edgebit.security")

SAME_S = 60.0  # the same refusal within this time is counted
SAME_MAX = 256  # refusals that are told apart at once
LINES_A_MINUTE = 120
FILE = "security.log"
_RETRY_S = 60.0  # after a write that failed


class SecurityLog:
    """Writes `path`, and `path`.1 and so on for what came before. In one thread."""

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        files: int,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`max_bytes` of one file (0: nothing is written), `files` of them with the one in use."""
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._clock = clock
        self._wall = wall
        self._same: OrderedDict[tuple[str, str, str], list[float]] = OrderedDict()  # [began, count], the oldest first
        self._minute = clock()
        self._lines = 0  # of this minute
        self._unwritten = 0  # lines
        self._unwritten_codes: Counter[str] = Counter()  # refusals in them
        self._failed_at: float | None = None

    def refused(self, status: int, code: str, principal: str, op: str) -> None:
        """Note a refusal; `principal` is hashed already, `op` one that is known or "?"."""
        self.tick()
        key = (code, principal, op)
        if (known := self._same.get(key)) is not None:
            known[1] += 1
            return
        if len(self._same) >= SAME_MAX:
            self._close_oldest()
        self._same[key] = [self._clock(), 0]
        self._write({"status": status, "code": code, "principal": principal, "op": op})

    def tick(self) -> None:
        """Write the counts whose minute is over."""
        now = self._clock()
        while self._same and now - next(iter(self._same.values()))[0] >= SAME_S:
            self._close_oldest()
        if now - self._minute >= 60.0:
            self._minute, self._lines = now, 0
            self._tell_left_out()

    def close(self) -> None:
        """Write what is still being counted."""
        while self._same:
            self._close_oldest()
        self._lines = 0
        self._tell_left_out()

    def _tell_left_out(self) -> None:
        if self._unwritten:
            lines, codes = self._unwritten, dict(self._unwritten_codes.most_common())
            self._unwritten = 0
            self._unwritten_codes.clear()
            self._write({"event": "suppressed", "lines": lines, "codes": codes})

    def _close_oldest(self) -> None:
        (code, principal, op), (_, count) = self._same.popitem(last=False)
        if count:
            self._write({"code": code, "principal": principal, "op": op, "repeated": int(count)})

    def _write(self, facts: dict[str, Any]) -> None:
        if not self._max_bytes:
            return
        rests = self._failed_at is not None and self._clock() - self._failed_at < _RETRY_S
        if rests or self._lines >= LINES_A_MINUTE:
            self._leave_out(facts)
            return
        self._lines += 1
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall()))
        line = json.dumps({"time": stamp, **facts}, separators=(",", ":")).encode() + b"\n"
        try:
            self._append(line)
        except OSError as error:
            if self._failed_at is None:
                log.warning("%s cannot be written, refusals are counted only, by code: %s", self._path, error)
            self._failed_at = self._clock()
            self._leave_out(facts)
        else:
            self._failed_at = None

    def _leave_out(self, facts: dict[str, Any]) -> None:
        self._unwritten += facts.get("lines", 1)
        self._unwritten_codes.update(facts.get("codes") or {facts["code"]: facts.get("repeated", 1)})

    def _append(self, line: bytes) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
            self._path.parent.mkdir(parents=True, exist_ok=True)
        if size and size + len(line) > self._max_bytes:
            self._rotate()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            older = _numbered(self._path, number)
            younger = _numbered(self._path, number - 1)
            if younger.exists():
                younger.replace(older)
        if self._files == 1:
            self._path.unlink()


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def read_security_log(path: Path) -> list[dict[str, Any]]:
    """All lines of all files, the oldest first; lines cut short by a loss of power are left out."""
    found = []
    endings = (other.suffix[1:] for other in path.parent.glob(path.name + ".*"))
    numbers = sorted(int(ending) for ending in endings if ending.isdecimal())
    for file in [*(_numbered(path, number) for number in reversed(numbers)), path]:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                fact = json.loads(line)
            except ValueError:
                continue
            if isinstance(fact, dict):
                found.append(fact)
    return found


def summary(facts: list[dict[str, Any]]) -> dict[str, Any]:
    """How many refusals by code, operation and (hashed) principal, and of what time."""
    codes: Counter[str] = Counter()
    principals: Counter[str] = Counter()
    ops: Counter[str] = Counter()
    suppressed = 0
    for fact in facts:
        if fact.get("event") == "suppressed":
            suppressed += _count(fact, "lines")
            left_out: dict[str, Any] = fact["codes"] if isinstance(fact.get("codes"), dict) else {}
            codes.update({code: _count(left_out, code) for code in left_out})
        if "code" in fact:
            count = _count(fact, "repeated") or 1
            codes[str(fact["code"])] += count
            principals[str(fact.get("principal"))] += count
            ops[str(fact.get("op"))] += count
    times = [str(fact["time"]) for fact in facts if "time" in fact]
    return {
        "from": times[0] if times else None,
        "to": times[-1] if times else None,
        "refused": sum(codes.values()),
        "codes": dict(codes.most_common()),
        "ops": dict(ops.most_common()),
        "principals": dict(principals.most_common(20)),
        "lines_suppressed": suppressed,
    }


def _count(fact: dict[str, Any], name: str) -> int:
    value = fact.get(name)
    return value if type(value) is int and value > 0 else 0
