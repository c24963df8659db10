"""Rehearsal: rows of old data among those of new ones, so that what was learnt before stays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgebit.errors import TrainError
from edgebit.progress import Progress, unwatched
from edgebit.train.data.preparation import DataSettings
from edgebit.train.prepared_rows import PreparedRows, prepared_rows
from edgebit.train.rows import Row, RowSource


@dataclass(slots=True)
class MixedRows:
    """Rows of two sources, of which `share` are the old one's, evenly spread."""

    new: RowSource
    old: RowSource
    share: float
    _taken: int = 0

    def __post_init__(self) -> None:
        """Raise TrainError where the share is none."""
        if not 0 < self.share < 1:
            raise TrainError(f"a share of {self.share:g} of old data: it must lie between 0 and 1")

    def take(self, count: int) -> list[Row]:
        """The next `count` rows."""
        rows = []
        for _ in range(count):
            old = int((self._taken + 1) * self.share) > int(self._taken * self.share)
            self._taken += 1
            rows.extend((self.old if old else self.new).take(1))
        return rows

    def state(self) -> dict[str, Any]:
        """The place in both."""
        return {"taken": self._taken, "new": self.new.state(), "old": self.old.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to the place that state() told."""
        self._taken = int(state["taken"])
        self.new.restore(state["new"])
        self.old.restore(state["old"])


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What is learnt from when old data are rehearsed, or are not."""

    source: RowSource
    old_held_out: Sequence[Row]  # shows whether what was learnt before stays
    fingerprint: str


@contextmanager
def rehearsal(
    old: Sequence[Path],
    share: float,
    rows: PreparedRows,
    folder: Path,
    data: DataSettings,
    *,
    row_length: int,
    seed: int,
    progress: Progress = unwatched,
) -> Iterator[Rehearsal]:
    """Mix the old data into `rows` as long as the block lasts; without old data, the rows alone.

    folder: has the tokenizer's files, which both are rendered with
    """
    if not old:
        yield Rehearsal(rows.source, (), rows.fingerprint)
        return
    settings = replace(data, format=None, tokenizer=folder)
    with prepared_rows(old, folder, settings, row_length=row_length, seed=seed, progress=progress) as before:
        source = MixedRows(rows.source, before.source, share)
        yield Rehearsal(source, before.held_out, f"{rows.fingerprint}+{share:g}*{before.fingerprint}")
