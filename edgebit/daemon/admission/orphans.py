"""Jobs that the journal waits for and nobody works on: a fault of ours, and repeats of them would wait for ever too."""

import time
from collections.abc import Callable

from edgebit.daemon.admission.journal import Journal
from edgebit.daemon.admission.journal_records import Entry

LOOK_S = 5.0  # between two looks
ORPHAN_S = 30.0  # between a job's leaving the queue and its answer on the disk lies no more, however slow that is


class Orphans:
    """Compares the journal with those who answer. In one thread."""

    def __init__(
        self,
        journal: Journal,
        has_owner: Callable[[tuple[str, str]], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`has_owner` tells whether somebody is going to answer the job of this principal and id."""
        self._journal = journal
        self._has_owner = has_owner
        self._clock = clock
        self._look_at = clock()
        self._since: dict[Entry, float] = {}

    def found(self) -> list[Entry]:
        """Those that have been without an owner for ORPHAN_S, at every look until they are answered. Often."""
        now = self._clock()
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_S
        alone = [entry for entry in self._journal.in_flight() if not self._has_owner(entry.key)]
        self._since = {entry: self._since.get(entry, now) for entry in alone}
        return [entry for entry, since in self._since.items() if now - since >= ORPHAN_S]
