"""The daemon's memory of its jobs: on the disk before a request is acknowledged, and before an answer is sent.

A disk that cannot be written refuses new work; what was taken on goes on, and is answered. docs/daemon.md says what the
file holds and for how long, docs/decisions/journal.md why it is built so.
"""

import dataclasses
import errno
import logging
import queue
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebit.daemon.admission import journal_records as records
from edgebit.daemon.admission.answers import StoredAnswer
from edgebit.daemon.admission.boot_clock import Clock, Instant, boot_clock, elapsed_s
from edgebit.daemon.admission.journal_records import Asked, Ended, Entry, Identity, Kind, Place
from edgebit.daemon.admission.record_file import HEAD, HEADER, RecordFile, Span
from edgebit.daemon.config.sections import JournalConfig
from edgebit.daemon.contract.frames import Outgoing, encode_json
from edgebit.daemon.contract.messages import Refusal

log = logging.getLogger("edgebit.journal")

REWRITE_AFTER_S = 300.0  # a prompt whose job is finished stays in the file no longer
REWRITE_BYTES = 1 << 18  # so much that is no longer needed is worth a rewrite at once
PLACES_MAX = 4  # where one job's answer goes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JobRecord:
    """What is kept of one job while it is answered: the AnswerRecord of its AnswerWriter. From the worker thread."""

    def __init__(self, journal: "Journal", entry: Entry) -> None:
        self.entry = entry
        self._journal = journal

    def sending(self, seq: int) -> None:
        """Frame `seq` of a stream, not the last one, is about to be sent."""
        self._journal.note_sending(self.entry, seq + 1)

    def ending(self, last: Outgoing, refusal: Refusal | None, whole: Mapping[str, Any]) -> Sequence[Outgoing]:
        """Keep the last frame; gives it, addressed to everyone who asked."""
        return self._journal.finish(self.entry, last, refusal, whole)


class Journal:
    """All jobs in flight and the last answers. Any method from any thread."""

    def __init__(self, path: Path, config: JournalConfig, *, clock: Clock | None = None) -> None:
        """Reads what the file tells. A disk's faults are not raised: `fault` says them, and new work is refused."""
        self._path = path
        self._config = config
        self._size_max = config.size_mib << 20
        self._clock = clock or boot_clock()
        self._lock = threading.RLock()  # taken before _sync_lock, where both are
        self._sync_lock = threading.Lock()
        self._delivered: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._file: RecordFile | None = None
        self._entries: dict[int, Entry] = {}
        self._by_key: dict[tuple[str, str], Entry] = {}
        self._appended = self._synced = 0  # records
        self._stale_since: float | None = None  # since when the file holds what nobody needs any more
        self.fault: str | None = None
        self.counters: Counter[str] = Counter()
        try:
            self._open()
        except OSError as error:
            self._failed(error)
        self._next = max(self._entries, default=0) + 1

    def now(self) -> Instant:
        """This moment, as the journal writes it down."""
        return self._clock()

    # What is known

    def entry(self, principal: str, job_id: str) -> Entry | None:
        """The job of this id, in flight or finished; None where it is not known, or no longer."""
        with self._lock:
            return self._by_key.get((principal, job_id))

    def find_redelivered(self, identity: Identity, session_began: int) -> Entry | None:
        """The job of the very message that the broker sends again, having missed its acknowledgement.

        A broker sends again under the same packet id, within one session, on a later connection. `session_began`: the
        number of the session's first connection.
        """
        with self._lock:
            return next((entry for entry in self._entries.values() if _is_same(entry, identity, session_began)), None)

    def answer(self, entry: Entry) -> StoredAnswer:
        """What a finished job was answered. Raises Refusal where the disk has lost it."""
        assert entry.ended is not None
        try:
            with self._lock:
                return StoredAnswer(*records.read_answer(self._body(entry.answer)), entry.ended)
        except OSError as error:
            self._failed(error)
            raise _refusal(error) from error

    def find(self, principal: str, job_id: str) -> Mapping[str, Any] | None:
        """The last frame of a finished job as JSON, with all of its text; None where none is kept. For lookup.get."""
        entry = self.entry(principal, job_id)
        return None if entry is None or entry.ended is None else self.answer(entry).frame()

    def unfinished(self) -> list[tuple[Entry, Asked, float]]:
        """The jobs to take up after a restart, in the order they came: what was asked, and seconds to the deadline."""
        with self._lock:
            found = []
            for entry in [entry for entry in self._entries.values() if entry.ended is None]:
                try:
                    asked = records.read_asked(self._body(entry.asked))
                except (OSError, ValueError, KeyError, TypeError) as error:
                    log.error("job %s is lost: its record cannot be read: %s", entry.identity.id, error)
                    self.counters["journal_lost"] += 1
                    self._forget(entry)
                    continue
                found.append((entry, asked, asked.ttl_s - elapsed_s(asked.at, self._clock())))
            return found

    def undelivered(self) -> list[Outgoing]:
        """The last frames that the broker may not have, as they were sent before."""
        with self._lock:
            return [
                message for entry in list(self._entries.values()) if entry.undelivered for message in self._again(entry)
            ]

    # What happens

    def accept(self, identity: Identity, place: Place, asked: Asked, reserve: int) -> JobRecord:
        """Take a job on, for good with the next commit(). `reserve`: bytes of the disk that its answer may take.

        Raises Refusal where there is no room.
        """
        with self._lock:
            entry = Entry(number=self._next, identity=identity, places=[place], reserve=reserve)
            body = records.accepted(entry, asked)
            try:
                entry.asked = self._append_new(body, reserve)
            except OSError as error:
                self._failed(error)
                raise _refusal(error) from error
            self._next += 1
            if (before := self._by_key.get(entry.key)) is not None:
                self._note(records.mark(Kind.WITHDRAWN, before))
                self._forget(before)
            self._entries[entry.number] = self._by_key[entry.key] = entry
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
            try:
                entry.joins.append(self._append_new(records.joined(entry, place), 0))
            except OSError as error:
                self._failed(error)
                raise _refusal(error) from error
            entry.places.append(place)
            return True

    def commit(self) -> None:
        """Have on the disk all that was accepted. Raises Refusal where that fails."""
        try:
            self._make_durable()
        except OSError as error:
            self._failed(error)
            raise _refusal(error) from error
        self.fault = None

    def withdraw(self, record: JobRecord) -> None:
        """Forget a job that was accepted, and not committed."""
        with self._lock:
            self._note(records.mark(Kind.WITHDRAWN, record.entry))
            self._forget(record.entry)

    def resume(self, entry: Entry, reserve: int) -> JobRecord:
        """Take a job up again after a restart."""
        with self._lock:
            entry.resumed += 1
            entry.reserve = reserve
            self._note(records.mark(Kind.RESUMED, entry))
            return JobRecord(self, entry)

    def note_sending(self, entry: Entry, frames: int) -> None:
        """So many frames of a stream are out: it cannot be begun anew. Survives a crash of ours, not a power cut."""
        with self._lock:
            entry.frames_sent = frames
            self._note(records.sending(entry, frames))

    def finish(self, entry: Entry, last: Outgoing, refusal: Refusal | None, whole: Mapping[str, Any]) -> list[Outgoing]:
        """Keep a job's last frame on the disk; gives it, addressed to everyone who asked.

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
            body = records.finished(entry, ended, last.payload, encode_json(whole))
            entry.ended, entry.undelivered, entry.answer, entry.asked = ended, len(entry.places), body, None
            entry.joins.clear()
            self._is_stale()
            try:
                if self._file is not None and self._file.trusted:
                    entry.answer = self._file.append_into_reserve(body)
                    self._appended += 1
            except OSError as error:
                self._failed(error)
        try:
            self._make_durable(anew=isinstance(entry.answer, bytes))
        except OSError as error:
            self._failed(error)
            self.counters["journal_unwritten_answers"] += 1
            log.error("the answer of job %s is sent, but not kept: %s", entry.identity.id, error)
        return self._to_all(entry, last)

    def tick(self) -> None:
        """What is not urgent: note deliveries, forget old answers, give the disk back. Often, from one thread."""
        with self._lock:
            while not self._delivered.empty():
                entry = self._delivered.get()
                entry.undelivered = max(0, entry.undelivered - 1)
                if not entry.undelivered and entry.number in self._entries:
                    self._note(records.mark(Kind.DELIVERED, entry))
            self._forget_old()
            stale_s = 0.0 if self._stale_since is None else self._clock().up_s - self._stale_since
            dead = 0 if self._file is None else self._file.end - self._live_bytes()
            if stale_s > REWRITE_AFTER_S or (dead > REWRITE_BYTES and dead > self._live_bytes()):
                try:
                    self._rewrite()
                except OSError as error:
                    self._failed(error)
                    self._stale_since = self._clock().up_s  # the next try is not at once

    def close(self) -> None:
        """Give the file back."""
        with self._lock, self._sync_lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    # The file

    def _open(self) -> None:
        if not self._path.exists():
            self._rewrite()
            return
        self._file, found, damaged = RecordFile.open(self._path)
        self._path.chmod(0o600)
        self._entries, unknown = records.read_back(found)
        self._by_key = {entry.key: entry for entry in self._entries.values()}
        if damaged:
            log.warning("%s: %d bytes behind the last whole record are cut off", self._path, damaged)
            self.counters["journal_cut_bytes"] += damaged
        if unknown:
            log.warning("%s: %d records are not understood, and passed over", self._path, unknown)
        if found:
            self._is_stale()

    def _append_new(self, body: bytes, reserve: int) -> Span:
        kept_free = reserve + sum(entry.reserve for entry in self._entries.values() if entry.ended is None)
        size = HEAD.size + len(body) + kept_free
        file = self._file
        if file is None or not file.trusted:
            file = self._rewrite()
        if file.end + size > self._size_max:
            self._forget_until(3 * self._size_max // 4 - size)
            if self._live_bytes() + size > self._size_max:
                raise OSError(errno.EFBIG, f"the journal is at its limit of {self._config.size_mib} MiB")
            file = self._rewrite()
        span = file.append(body, beside=kept_free)
        self._appended += 1
        return span

    def _note(self, body: bytes) -> None:
        """Append what may be lost."""
        try:
            if self._file is not None and self._file.trusted:
                self._file.append_into_reserve(body)
                self._appended += 1
        except OSError as error:
            self._failed(error)

    def _make_durable(self, *, anew: bool = False) -> None:
        """One sync for all that have appended before; `anew`, or where that fails, by another file."""
        wanted = self._appended
        with self._sync_lock:
            if self._synced >= wanted and not anew:
                return
            file = self._file
            if file is not None and file.trusted and not anew:
                mark = self._appended
                try:
                    file.sync()
                    self._synced = mark
                    return
                except OSError as error:
                    self._failed(error)
        self._rewrite()

    def _rewrite(self) -> RecordFile:
        """Another file with what is still needed in the place of this one; a failure leaves this one."""
        with self._lock, self._sync_lock:
            parts = [(entry, bodies) for entry in list(self._entries.values()) if (bodies := self._bodies(entry))]
            file, spans = RecordFile.write(self._path, [body for _, bodies in parts for body in bodies])
            at = 0
            for entry, bodies in parts:
                entry.lie_at(spans[at : at + len(bodies)])
                at += len(bodies)
            if self._file is not None:
                self._file.close()
            self._file, self._synced, self._stale_since, self.fault = file, self._appended, None, None
            return file

    def _bodies(self, entry: Entry) -> list[bytes]:
        """The records that are still needed of an entry; none where the disk has lost them."""
        try:
            return records.needed(entry, self._body)
        except OSError as error:
            log.error("the record of job %s is lost: %s", entry.identity.id, error)
            self.counters["journal_lost"] += 1
            if entry.ended is not None:
                self._forget(entry)
            return []

    def _body(self, place: Span | bytes | None) -> bytes:
        if isinstance(place, bytes):
            return place
        if place is None or self._file is None:
            raise OSError(errno.EIO, "there is no record of it")
        return self._file.read(place)

    def _live_bytes(self) -> int:
        return len(HEADER) + sum(entry.size for entry in self._entries.values())

    # What is forgotten

    def _forget(self, entry: Entry) -> None:
        self._entries.pop(entry.number, None)
        if self._by_key.get(entry.key) is entry:
            del self._by_key[entry.key]
        self._is_stale()

    def _forget_old(self) -> None:
        now = self._clock()
        ended = [(entry, entry.ended) for entry in self._entries.values() if entry.ended is not None]
        for entry, how in ended:
            keep_s = self._config.keep_s if not entry.undelivered else max(self._config.keep_s, how.ttl_s)
            if elapsed_s(how.at, now) > keep_s:
                self._forget(entry)
        surplus = len(ended) - self._config.answers_max
        for entry in self._forgettable()[: max(0, surplus)]:
            self._forget(entry)

    def _forget_until(self, size: int) -> None:
        for entry in self._forgettable():
            if self._live_bytes() <= size:
                return
            self.counters["journal_forgotten_early"] += 1
            self._forget(entry)

    def _forgettable(self) -> list[Entry]:
        """Finished and delivered jobs; first those that nobody can ask for again, having given no id, then by age."""
        found = [entry for entry in self._entries.values() if entry.ended is not None and not entry.undelivered]
        return sorted(found, key=lambda entry: (entry.identity.id_given, entry.number))

    def _is_stale(self) -> None:
        if self._stale_since is None:
            self._stale_since = self._clock().up_s

    # What is sent

    def _again(self, entry: Entry) -> list[Outgoing]:
        try:
            stored = self.answer(entry)
        except Refusal:
            return []
        left_s = stored.ended.ttl_s - elapsed_s(stored.ended.at, self._clock())
        return self._to_all(entry, stored.last_frame(entry.places[0], left_s))

    def _to_all(self, entry: Entry, last: Outgoing) -> list[Outgoing]:
        return [
            dataclasses.replace(
                last,
                topic=place.topic,
                correlation=place.correlation,
                delivered=lambda: self._delivered.put(entry),
            )
            for place in entry.places
        ]

    def _failed(self, error: OSError) -> None:
        self.fault = f"{self._path}: {error.strerror or error}"
        self.counters["journal_fault"] += 1
        log.error("the journal: %s", self.fault)


def _is_same(entry: Entry, identity: Identity, session_began: int) -> bool:
    known = entry.identity
    return (
        known.packet_id == identity.packet_id != 0
        and session_began <= known.connection < identity.connection
        and known.principal == identity.principal
        and known.fingerprint == identity.fingerprint
    )


def _refusal(error: OSError) -> Refusal:
    if error.errno in _FULL:
        return Refusal(
            503, "storage_full", "there is no room for new work on the disk", retryable=True, retry_after_ms=10_000
        )
    words = f"new work cannot be written down: {error.strerror or error}"
    return Refusal(503, "storage_fault", words, retryable=True, retry_after_ms=10_000)
