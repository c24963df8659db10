"""How a roll-out looks while it goes on: one live table on a terminal, else a line for each event."""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgebit.cli.terminal import printable
from edgebit.deploy.install import LOG_HEADING
from edgebit.deploy.plan import Step
from edgebit.fleet.journal import DeviceReport
from edgebit.fleet.rollout import GOOD, Wave
from edgebit.transport import Progress

# What a step is called in a narrow column.
_DOING = {
    "judge": "judge its signature",
    "prepare": "make its folder",
    "settle": "settle a deploy that was cut off",
    "verify": "check the sums there",
    "send": "send",
    "stage": "lay it into the free slot",
    "selftest": "golden probes",
    "configure": "write settings",
    "ensure": "see that it runs",
    "switch": "switch, on trial",
    "start": "start",
    "check": "wait for an answer",
    "commit": "keep",
}
_MARKS = {
    "updated": ("answers", "green"),
    "present": ("had it already", "green"),
    "failed": ("failed", "red"),
    "unreachable": ("out of reach", "red"),
    "stopped": ("stopped", "yellow"),
}
_BUNDLE = re.compile(r"\bbundle [0-9a-f]{16} ")
_WAITING, _DONE, _FAILED, _RUNNING = range(4)  # the later, the more it should be seen
_OTHER_LINES = 5  # header, the rest of the devices, the note, the summary, the prompt


@dataclass(slots=True)
class _Row:
    """One device in the table."""

    wave: str
    rank: int = _WAITING
    doing: str = "waits"
    style: str = "dim"
    size: int = 0  # of the file on its way
    sent: int = 0  # of that file
    sent_all: int = 0
    began: float | None = None
    asked: str | None = None  # when, of one that has the bundle and is only asked again
    seconds: float | None = None

    def text(self) -> str:
        """What it does now, for the table."""
        if self.rank == _RUNNING and self.size:
            return f"{self.doing}  {100 * self.sent // self.size} %"
        return self.doing


@dataclass(slots=True)
class RolloutDisplay:
    """A listener of a roll-out, told by several threads at once."""

    console: Console
    waves: Sequence[Wave]
    max_failures: int
    _rows: dict[str, _Row] = field(init=False)
    _live: Live | None = field(init=False, default=None)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _note: str = field(init=False, default="")
    _began: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._rows = {name: _Row(wave.name) for wave in self.waves for name in wave.devices}

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=8, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def began(self, name: str, wave: str) -> None:
        """A device is under way."""
        with self._lock:
            row = self._rows[name]
            row.rank, row.doing, row.style = _RUNNING, "look at it", ""
            row.began, row.asked = time.monotonic(), None
            self._note = ""
        self._line(f"{name}: begins ({wave})")

    def asking(self, name: str, when: str) -> None:
        """A device that has the bundle is asked again: no line until it has answered."""
        with self._lock:
            row = self._rows[name]
            row.rank, row.doing, row.style = _RUNNING, f"ask again {when}".rstrip(), ""
            row.began, row.asked = time.monotonic(), when
            self._note = ""

    def step(self, name: str, step: Step) -> None:
        """It does a step."""
        doing = _DOING.get(step.action, step.action)
        with self._lock:
            row = self._rows[name]
            row.doing, row.size = f"{doing} {step.name}".rstrip(), 0
        self._line(f"{name}: {step.line}")

    def sending(self, name: str, size: int) -> Progress:
        """A file goes to it."""
        with self._lock:
            row = self._rows[name]
            row.size, row.sent = size, 0

        def told(count: int) -> None:
            with self._lock:
                row.sent += count
                row.sent_all += count

        return told

    def ended(self, report: DeviceReport) -> None:
        """It is done, or failed."""
        words, style = _MARKS.get(report.result, (report.result, ""))
        with self._lock:
            row = self._rows[report.name]
            row.rank = _DONE if report.result in GOOD else _FAILED
            row.style, row.seconds, row.size = style, report.seconds, 0
            row.sent_all = report.sent_bytes or row.sent_all
            row.doing = words if report.result in GOOD else f"{words}: {_in_short(report.why)}"
            doing, asked = row.doing, row.asked
        if asked is not None and report.result in GOOD:
            doing = f"{f'asked again {asked}'.rstrip()}: answers"
        elif report.answer_s and report.result == "present":
            doing += f"; answered in {report.answer_s:.1f} s"
        elif report.answer_s and report.result == "updated":
            doing += f" after {report.answer_s:.1f} s"
        self._line(f"{report.name}: {doing}")

    def say(self, text: str) -> None:
        """Something about the whole roll-out."""
        with self._lock:
            self._note = text
        self._line(text)

    def soaking(self, left_s: float) -> None:
        """The canaries run, and others wait so long."""
        first = not self._note
        with self._lock:
            self._note = f"the canary runs; others follow in {left_s:.0f} s if it still answers"
        if first:
            self._line(self._note)

    def _line(self, text: str) -> None:
        if self._live is None:
            self.console.print(text, markup=False, soft_wrap=True)

    def __rich__(self) -> RenderableType:
        with self._lock:
            shown, hidden = self._shown()
            table = Table(box=None, header_style="bold", expand=True, padding=(0, 2, 0, 0))
            table.add_column("device", no_wrap=True, overflow="ellipsis", max_width=20)
            table.add_column("wave", no_wrap=True, style="dim")
            table.add_column("now", no_wrap=True, overflow="ellipsis", ratio=1)
            table.add_column("sent", no_wrap=True, justify="right", min_width=8)
            table.add_column("time", no_wrap=True, justify="right", min_width=6)
            for name in shown:
                row = self._rows[name]
                seconds = row.seconds if row.rank != _RUNNING else time.monotonic() - (row.began or 0)
                table.add_row(
                    name,
                    row.wave,
                    Text(row.text(), style=row.style),
                    f"{row.sent_all / 1e6:.1f} MB" if row.sent_all else "",
                    "" if seconds is None else f"{seconds:.0f} s",
                )
            lines: list[RenderableType] = [table]
            if hidden:
                lines.append(Text(f"and {hidden} more", style="dim"))
            if self._note:
                lines.append(Text(self._note, style="yellow", no_wrap=True, overflow="ellipsis"))
            return Group(*lines, Text(self._summary(), style="bold", no_wrap=True, overflow="ellipsis"))

    def _shown(self) -> tuple[list[str], int]:
        """The devices that fit the screen, in the inventory's order: those under way first, then failed ones."""
        room = max(3, self.console.size.height - _OTHER_LINES)
        names = list(self._rows)
        if len(names) <= room:
            return names, 0
        wanted = sorted(names, key=lambda name: -self._rows[name].rank)[:room]
        return [name for name in names if name in wanted], len(names) - room

    def _summary(self) -> str:
        counts = [sum(row.rank == rank for row in self._rows.values()) for rank in range(4)]
        waiting, done, failed, running = counts
        limit = f" (at most {self.max_failures})" if failed else ""
        took = time.monotonic() - self._began
        text = f"{done} of {len(self._rows)} done, {failed} failed{limit}, {running} under way, {waiting} wait"
        return f"{text}; {took:.0f} s"


def _in_short(why: str) -> str:
    """What fits a line: the log that may follow, and the bundle's id, stand in the report."""
    first = why.partition("\n")[0].partition(LOG_HEADING)[0].rstrip(" .")
    return _BUNDLE.sub("", printable(first))
