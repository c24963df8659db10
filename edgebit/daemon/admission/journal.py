"""The daemon's memory of its jobs: on the disk before a request is acknowledged, and before an answer is sent.

A disk that cannot be written refuses new work; what was taken on goes on, and is answered. docs/daemon.md says what the
file holds and for how long, docs/decisions/journal.md why it is built so.
"""

import dataclasses
import functools
import logging
import queue
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebit.daemon.admission import journal_records as records
from edgebit.daemon.admission.answers import StoredAnswer
from edgebit.daemon.admission.boot_clock import Clock, Instant, boot_clock, elapsed_s
from edgebit.daemon.admission.job_store import JobStore, refusal_of
from edgebit.daemon.admission.journal_records import Asked, Ended, Entry, Identity, Kind, Place
from edgebit.daemon.admission.recovery import interrupted
from edgebit.daemon.config.sections import JournalConfig
from edgebit.daemon.contract.frames import Outgoing, encode_json
from edgebit.daemon.contract.messages import Refusal

log = logging.getLogger("edgebit.journal")

PLACES_MAX = 4  # where one job's answer goes
FRAMES_AHEAD = 256  # of a stream: one write to the disk does for so many


class JobRecord:
    """What is kept of one job while it is answered: the AnswerRecord of its AnswerWriter. From the worker thread."""

    def __init__(self, journal: "Journal", entry: Entry) -> None:
        self.entry = entry
        self._journal = journal

    def sending(self, seq: int) -> None:
        """Frame `seq` of a stream, not the last one, is about to be sent."""
        self._journal.note_sending(self.entry, seq)

    def ending(self, last: Outgoing, refusal: Refusal | None, whole: Mapping[str, Any]) -> Sequence[Outgoing]:
        """Keep the last frame; gives it, addressed to everyone who asked."""
        return self._journal.finish(self.entry, last, refusal, whole)


class Journal:
    """All jobs in flight and the last answers. Any method from any thread."""

    def __init__(self, path: Path, config: JournalConfig, *, clock: Clock | None = None) -> None:
        """Reads what the file tells. A disk's faults are not raised: `fault` says them, and new work is refused."""
        self._clock = clock or boot_clock()
        self._store = JobStore(path, config, self._clock)
        self._lock, self._entries = self._store.lock, self._store.entries
        self._delivered: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._unsent: queue.SimpleQueue[tuple[Entry, Place]] = queue.SimpleQueue()  # too much waited for the broker

    @property
    def fault(self) -> str | None:
        """Why the disk takes nothing; None where it does."""
        return self._store.fault

    @property
    def counters(self) -> Counter[str]:
        """What went wrong, how often."""
        return self._store.counters

    def now(self) -> Instant:
        """This moment, as the journal writes it down."""
        return self._clock()

    # What is known

    def entry(self, principal: str, job_id: str) -> Entry | None:
        """The job of this id, in flight or finished; None where it is not known, or no longer."""
        with self._lock:
            return self._entries.of(principal, job_id)

    def find_redelivered(self, identity: Identity, session_began: int) -> Entry | None:
        """The job of the very message that the broker sends again, having missed its acknowledgement.

        A broker sends again under the same packet id, within one session, on a later connection. `session_began`: the
        number of the session's first connection.
        """
        with self._lock:
            return self._entries.redelivered(identity, session_began)

    def answer(self, entry: Entry) -> StoredAnswer:
        """What a finished job was answered. Raises Refusal where the disk has lost it."""
        assert entry.ended is not None
        try:
            with self._lock:
                return StoredAnswer(*records.read_answer(self._store.body(entry.answer)), entry.ended)
        except OSError as error:
            self._store.failed(error)
            raise refusal_of(error) from error
        except records.UNREADABLE as error:
            log.error("the answer of job %s cannot be read: %s", entry.identity.id, error)
            self.counters["journal_lost"] += 1
            raise interrupted("its answer was written by another version") from error

    def find(self, principal: str, job_id: str) -> Mapping[str, Any] | None:
        """The last frame of a finished job as JSON, with all of its text; None where none is kept. For lookup.get."""
        entry = self.entry(principal, job_id)
        return None if entry is None or entry.ended is None else self.answer(entry).frame()

    def asked(self, entry: Entry) -> Asked | None:
        """What a job in flight has asked for; None where the disk has lost it, or another version has written it."""
        try:
            with self._lock:
                return records.read_asked(self._store.body(entry.asked))
        except (OSError, *records.UNREADABLE) as error:
            log.error("what job %s asks for cannot be read: %s", entry.identity.id, error)
            self.counters["journal_lost"] += 1
            return None

    def in_flight(self) -> list[Entry]:
        """The jobs that are not answered yet, in the order they came."""
        with self._lock:
            return [entry for entry in self._entries if entry.ended is None]

    def unfinished(self) -> list[tuple[Entry, Asked | None, float]]:
        """The jobs to take up after a restart, in the order they came: what was asked, and seconds to the deadline."""
        found = []
        for entry in self.in_flight():
            asked = self.asked(entry)
            left_s = 0.0 if asked is None else asked.ttl_s - elapsed_s(asked.at, self._clock())
            found.append((entry, asked, left_s))
        return found

    def undelivered(self) -> list[Outgoing]:
        """The last frames that the broker may not have, as they were sent before."""
        with self._lock:
            missed = [entry for entry in self._entries if entry.undelivered]
            return [message for entry in missed for message in self._again(entry, entry.places)]

    @property
    def has_unsent(self) -> bool:
        """Whether last frames had no room among what waits for the broker."""
        return not self._unsent.empty()

    def unsent(self, most: int) -> list[Outgoing]:
        """Up to so many last frames that had no room among what waits for the broker, each once. In one thread."""
        found: list[Outgoing] = []
        while len(found) < most and self.has_unsent:
            entry, place = self._unsent.get()
            with self._lock:
                if entry in self._entries:
                    found += self._again(entry, [place])
        return found

    # What happens

    def accept(self, identity: Identity, place: Place, asked: Asked, reserve: int) -> JobRecord:
        """Take a job on, for good with the next commit(). `reserve`: bytes of the disk that its answer may take.

        Raises Refusal where there is no room.
        """
        with self._lock:
            entry = Entry(number=self._entries.next_number(), identity=identity, places=[place], reserve=reserve)
            entry.asked = self._store.append_new(records.accepted(entry, asked), reserve)
            if (before := self._entries.of(*entry.key)) is not None:
                self._store.note(records.mark(Kind.WITHDRAWN, before))
                self._store.forget(before)
            self._entries.add(entry)
            return JobRecord(self, entry)

    def join(self, entry: Entry, place: Place) -> bool:
        """Send the answer of a job in flight to another place too, for good with the next commit().

        False where the job has been finished meanwhile. Raises Refusal where there is no room.
        """
        with self._lock:
            if entry.ended is not None:
                return False
            if place in entry.places:
                return True
            if len(entry.places) >= PLACES_MAX:
                raise Refusal(409, "id_in_use", f"job {entry.identity.id} is awaited at {PLACES_MAX} topics already")
            entry.joins.append(self._store.append_new(records.joined(entry, place), 0))
            entry.places.append(place)
            return True

    def commit(self) -> None:
        """Have on the disk all that was accepted. Raises Refusal where that fails."""
        try:
            self._store.commit()
        except OSError as error:
            self._store.failed(error)
            raise refusal_of(error) from error

    def withdraw(self, record: JobRecord) -> None:
        """Forget a job that was accepted, and not committed."""
        with self._lock:
            self._store.note(records.mark(Kind.WITHDRAWN, record.entry))
            self._store.forget(record.entry)

    def resume(self, entry: Entry, reserve: int) -> JobRecord:
        """Take a job up again after a restart."""
        with self._lock:
            entry.resumed += 1
            self._entries.reserve(entry, reserve)
            self._store.note(records.mark(Kind.RESUMED, entry))
            return JobRecord(self, entry)

    def note_sending(self, entry: Entry, seq: int) -> None:
        """Frame `seq` is about to go out: what it belongs to cannot be begun anew after a crash or a power cut."""
        if seq < entry.frames_sent:
            return
        with self._lock:
            entry.frames_sent = seq + FRAMES_AHEAD
            noted = self._store.note(records.sending(entry, entry.frames_sent)) is not None
        try:
            self._store.make_durable(anew=not noted)
        except OSError as error:
            self._store.failed(error)

    def finish(self, entry: Entry, last: Outgoing, refusal: Refusal | None, whole: Mapping[str, Any]) -> list[Outgoing]:
        """Keep a job's last frame on the disk; gives it, addressed to everyone who asked. Nothing where it has ended.

        A disk that fails keeps nobody from the answer: it is then remembered in memory.
        """
        ended = Ended(
            status=200 if refusal is None else refusal.status,
            code="" if refusal is None else refusal.code,
            retryable=refusal is not None and refusal.retryable,
            content_type=last.content_type,
            user=last.user,
            ttl_s=float(last.expiry_s or 0),
            at=self._clock(),
        )
        with self._lock:
            if entry.ended is not None:
                return []
            body = records.finished(entry, ended, last.payload, encode_json(whole))
            entry.ended, entry.undelivered, entry.asked = ended, len(entry.places), None
            entry.joins.clear()
            entry.answer = span = self._store.note(body)
            if span is None:
                entry.answer = body
            self._entries.reserve(entry, 0)
            self._store.note_stale()
        try:
            self._store.make_durable(anew=span is None)
        except OSError as error:
            self._store.failed(error)
            self.counters["journal_unwritten_answers"] += 1
            log.error("the answer of job %s is sent, but not kept: %s", entry.identity.id, error)
        return self._to(entry.places, entry, last)

    def tick(self) -> None:
        """What is not urgent: note deliveries, forget old answers, give the disk back. Often, from one thread."""
        with self._lock:
            while not self._delivered.empty():
                entry = self._delivered.get()
                entry.undelivered = max(0, entry.undelivered - 1)
                if not entry.undelivered and entry in self._entries:
                    self._store.note(records.mark(Kind.DELIVERED, entry))
            self._store.tidy()

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._store.close()

    # What is sent

    def _again(self, entry: Entry, places: Sequence[Place]) -> list[Outgoing]:
        try:
            stored = self.answer(entry)
        except Refusal:
            return []
        left_s = stored.ended.ttl_s - elapsed_s(stored.ended.at, self._clock())
        return self._to(places, entry, stored.last_frame(entry.places[0], left_s))

    def _to(self, places: Sequence[Place], entry: Entry, last: Outgoing) -> list[Outgoing]:
        return [
            dataclasses.replace(
                last,
                topic=place.topic,
                correlation=place.correlation,
                delivered=lambda: self._delivered.put(entry),
                no_room=functools.partial(self._unsent.put, (entry, place)),
            )
            for place in places
        ]
