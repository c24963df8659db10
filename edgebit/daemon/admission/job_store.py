"""The jobs that the journal knows together with their records in its file: room, durability, and giving both back."""

import errno
import logging
import threading
from collections import Counter
from pathlib import Path

from edgebit.daemon.admission import journal_records as records
from edgebit.daemon.admission.boot_clock import Clock, Instant
from edgebit.daemon.admission.entries import Entries
from edgebit.daemon.admission.journal_records import Entry, Kind
from edgebit.daemon.admission.record_file import HEAD, STEP_BYTES, Span
from edgebit.daemon.admission.shared_file import SharedFile
from edgebit.daemon.config.sections import JournalConfig
from edgebit.daemon.contract.messages import Refusal

log = logging.getLogger("edgebit.journal")

TIDY_S = 1.0  # between two looks at what may be forgotten
REPAIR_S = 10.0  # between two tries to write to a disk that has failed
REWRITE_AFTER_S = 300.0  # a prompt whose job is finished stays in the file no longer
REWRITE_BYTES = 1 << 18  # so much that is no longer needed is worth a rewrite at once
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JobStore:
    """Entries and file. Hold `lock` for all but make_durable() and failed()."""

    def __init__(self, path: Path, config: JournalConfig, clock: Clock) -> None:
        """Reads what the file tells. A disk's faults are not raised: `fault` says them."""
        self.lock = threading.RLock()
        self.entries = Entries()
        self.fault: str | None = None
        self.counters: Counter[str] = Counter()
        self._config = config
        self._size_max = config.size_mib << 20
        self._clock = clock
        self._file = SharedFile(path)
        self._stale_since: float | None = None  # since when the file holds what nobody needs any more
        self._tidy_at = self._repair_at = 0.0  # in seconds of the clock's up_s
        self._closed = False
        try:
            self._open()
        except OSError as error:
            self.failed(error)

    def append_new(self, body: bytes, reserve: int) -> Span:
        """Write down new work, with room for all answers that are owed. Raises Refusal where there is none."""
        beside = self.entries.reserved + reserve
        try:
            if not self._file.usable:
                self._rewrite()
            self._make_room(HEAD.size + len(body) + beside)
            return self._file.append(body, beside=beside)
        except OSError as error:
            self.failed(error)
            raise refusal_of(error) from error

    def note(self, body: bytes) -> Span | None:
        """Append into the room that was kept; None where that fails."""
        try:
            return self._file.append_into_reserve(body) if self._file.usable else None
        except OSError as error:
            self.failed(error)
            return None

    def body(self, place: Span | bytes | None) -> bytes:
        """A record. Raises OSError where the disk has lost it."""
        if isinstance(place, bytes):
            return place
        if place is None:
            raise OSError(errno.EIO, "there is no record of it")
        return self._file.read(place)

    def commit(self) -> None:
        """All that was accepted before is for good. Raises OSError where it cannot be."""
        with self.lock:
            self.entries.commit()
            marked = self.note(records.committed()) is not None
        self.make_durable(anew=not marked)

    def make_durable(self, *, anew: bool = False) -> None:
        """One sync for all that was appended before; `anew`, or where that fails, by another file. Raises OSError."""
        if not anew:
            try:
                if self._file.sync():
                    return
            except OSError as error:
                self.failed(error)
        self._rewrite()

    def forget(self, entry: Entry) -> None:
        """A job that nobody needs any more."""
        self.entries.remove(entry)
        self.note_stale()

    def note_stale(self) -> None:
        """The file holds something that nobody needs any more."""
        if self._stale_since is None:
            self._stale_since = self._clock().up_s

    def tidy(self) -> None:
        """Forget what is old, give the disk back, and see whether a disk that has failed works again."""
        now = self._clock()
        if now.up_s < self._tidy_at:
            return
        self._tidy_at = now.up_s + TIDY_S
        for entry in self.entries.outdated(now, self._config.keep_s, self._config.answers_max):
            self.forget(entry)
        if self.fault is not None:
            if now.up_s >= self._repair_at:
                self._try_to_rewrite(STEP_BYTES)
        elif self._is_worth_a_rewrite(now):
            self._try_to_rewrite()

    def failed(self, error: OSError) -> None:
        """The disk has refused something."""
        self.fault = f"{self._file.path}: {error.strerror or error}"
        self._repair_at = self._clock().up_s + REPAIR_S
        self.counters["journal_fault"] += 1
        log.error("the journal: %s", self.fault)

    def close(self) -> None:
        """Give the file back. Nothing is written any more: another file would be made of what can be read of this."""
        self._closed = True
        self._file.close()

    def _open(self) -> None:
        if not self._file.path.exists():
            self._rewrite()
            return
        found, damaged = self._file.open()
        entries, unknown = records.read_back(found)
        self.entries.load(entries, self._clock())
        for entry in [entry for entry in self.entries if not entry.committed]:
            self.note(records.mark(Kind.WITHDRAWN, entry))
            self.forget(entry)
        if damaged:
            log.warning("%s: %d bytes behind the last whole record are cut off", self._file.path, damaged)
            self.counters["journal_cut_bytes"] += damaged
        if unknown:
            self.counters["journal_not_understood"] += unknown
            log.warning("%s: %d records are not understood, and passed over", self._file.path, unknown)
        if found:
            self.note_stale()

    def _make_room(self, size: int) -> None:
        """Have room below the limit. Not up to its last bytes, since then each new job would cost a rewrite."""
        if self._file.end + size <= self._size_max:
            return
        for entry in self.entries.above(3 * self._size_max // 4 - size):
            self.counters["journal_forgotten_early"] += 1
            self.forget(entry)
        if self.entries.live_bytes() + size > 7 * self._size_max // 8:
            self.counters["journal_limit"] += 1
            words = f"the journal is at its limit of {self._config.size_mib} MiB with jobs in flight"
            raise Refusal(503, "storage_full", words, retryable=True, retry_after_ms=1000)
        self._rewrite()

    def _rewrite(self, beside: int = 0) -> None:
        """Another file with what is still needed in the place of this one; a failure leaves this one. Raises OSError.

        beside: bytes that there must be room for, beside the answers that are owed, which shows that the disk is well;
        a file that is lost is replaced even where the answers have no room
        """
        with self.lock:
            if self._closed:
                raise OSError(errno.EBADF, "the journal is closed", str(self._file.path))
            parts = [(entry, bodies) for entry in self.entries if (bodies := self._bodies(entry))]
            parts.sort(key=lambda part: not part[0].committed)
            counting = sum(len(bodies) for entry, bodies in parts if entry.committed)
            bodies = [body for _, bodies in parts for body in bodies]
            was_usable = self._file.usable
            room = beside + (self.entries.reserved if was_usable else 0)
            spans = self._file.replace([*bodies[:counting], records.committed(), *bodies[counting:]], beside=room)
            del spans[counting]
            at = 0
            for entry, bodies in parts:
                entry.lie_at(spans[at : at + len(bodies)])
                at += len(bodies)
            self._stale_since = None
            if beside or not was_usable:
                self.fault = None

    def _try_to_rewrite(self, beside: int = 0) -> None:
        try:
            self._rewrite(beside)
        except OSError as error:
            self.failed(error)
            self._stale_since = self._clock().up_s  # the next try is not at once

    def _is_worth_a_rewrite(self, now: Instant) -> bool:
        live = self.entries.live_bytes()
        dead = self._file.end - live
        is_old = self._stale_since is not None and now.up_s - self._stale_since > REWRITE_AFTER_S
        return is_old or (dead > REWRITE_BYTES and dead > live)

    def _bodies(self, entry: Entry) -> list[bytes]:
        """The records that are still needed of an entry; none where the disk has lost them."""
        try:
            return records.needed(entry, self.body)
        except OSError as error:
            log.error("the record of job %s is lost: %s", entry.identity.id, error)
            self.counters["journal_lost"] += 1
            if entry.ended is not None:
                self.forget(entry)
            return []


def refusal_of(error: OSError) -> Refusal:
    """What a disk's fault means to whoever asks for something new."""
    if error.errno in _FULL:
        return Refusal(
            503, "storage_full", "there is no room for new work on the disk", retryable=True, retry_after_ms=10_000
        )
    words = f"new work cannot be written down: {error.strerror or error}"
    return Refusal(503, "storage_fault", words, retryable=True, retry_after_ms=10_000)
