"""The jobs that the journal knows, in memory: found by id, and forgotten by age, number and size."""

import dataclasses
from collections.abc import Iterator, Mapping

from edgebit.daemon.admission.boot_clock import Instant, carried_over, elapsed_s
from edgebit.daemon.admission.journal_records import Entry, Identity
from edgebit.daemon.admission.record_file import HEADER


class Entries:
    """All entries, in the order they came. One thread at a time."""

    def __init__(self) -> None:
        self._all: dict[int, Entry] = {}
        self._by_key: dict[tuple[str, str], Entry] = {}
        self._uncommitted: list[Entry] = []
        self._next = 1
        self.reserved = 0  # bytes of the disk that are kept free for answers to come

    def load(self, entries: Mapping[int, Entry], now: Instant) -> None:
        """Begin with what a file told. How long ago something was is counted by this run's clock from here on."""
        self._all = dict(entries)
        self._by_key = {entry.key: entry for entry in self._all.values()}
        self._next = max(self._all, default=0) + 1
        for entry in self._all.values():
            if entry.ended is not None:
                entry.ended = dataclasses.replace(entry.ended, at=carried_over(entry.ended.at, now))

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, entry: Entry) -> bool:
        return entry.number in self._all

    def next_number(self) -> int:
        """A number that no entry has had."""
        self._next += 1
        return self._next - 1

    def of(self, principal: str, job_id: str) -> Entry | None:
        """The job of this id, in flight or finished."""
        return self._by_key.get((principal, job_id))

    def add(self, entry: Entry) -> None:
        """A new job. One that had its id before is to be removed first."""
        self._all[entry.number] = self._by_key[entry.key] = entry
        self._uncommitted.append(entry)
        self.reserved += entry.reserve

    def remove(self, entry: Entry) -> None:
        """Forget a job."""
        self.reserve(entry, 0)
        self._all.pop(entry.number, None)
        if self._by_key.get(entry.key) is entry:
            del self._by_key[entry.key]

    def reserve(self, entry: Entry, size: int) -> None:
        """Keep so many bytes of the disk free for the job's answer."""
        self.reserved += size - entry.reserve
        entry.reserve = size

    def commit(self) -> None:
        """What was added is for good."""
        for entry in self._uncommitted:
            entry.committed = True
        self._uncommitted.clear()

    def redelivered(self, identity: Identity, session_began: int) -> Entry | None:
        """The job of a message that the broker sends again: under the same packet id, on a later connection."""
        return next((entry for entry in self._all.values() if _is_same(entry, identity, session_began)), None)

    def live_bytes(self) -> int:
        """Bytes of the file that are still needed."""
        return len(HEADER) + sum(entry.size for entry in self._all.values())

    def outdated(self, now: Instant, keep_s: float, answers_max: int) -> list[Entry]:
        """Finished jobs that are older than keep_s and, if not delivered, than their deadline; and surplus ones."""
        ended = [(entry, entry.ended) for entry in self._all.values() if entry.ended is not None]
        old = [
            entry
            for entry, how in ended
            if elapsed_s(how.at, now) > (max(keep_s, how.ttl_s) if entry.undelivered else keep_s)
        ]
        surplus = len(ended) - len(old) - answers_max
        if surplus > 0:
            gone = set(old)
            old += [entry for entry in self._forgettable() if entry not in gone][:surplus]
        return old

    def above(self, size: int) -> list[Entry]:
        """Finished jobs to forget so that the rest takes up to `size` bytes, or as near to it as can be."""
        too_many = self.live_bytes() - size
        found = []
        for entry in self._forgettable():
            if too_many <= 0:
                break
            too_many -= entry.size
            found.append(entry)
        return found

    def _forgettable(self) -> list[Entry]:
        """Finished and delivered jobs; first those that nobody can ask for again, having given no id, then by age."""
        found = [entry for entry in self._all.values() if entry.ended is not None and not entry.undelivered]
        return sorted(found, key=lambda entry: (entry.identity.id_given, entry.number))


def _is_same(entry: Entry, identity: Identity, session_began: int) -> bool:
    known = entry.identity
    return (
        known.packet_id == identity.packet_id != 0
        and session_began <= known.connection < identity.connection
        and known.principal == identity.principal
        and known.fingerprint == identity.fingerprint
    )
