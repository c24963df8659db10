"""Batches in flight: which jobs belong to one, how each ended, and the summary once all have."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.contract.frames import AnswerRecord, AnswerWriter
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.serving.outcome import Outcome

Key = tuple[str, str]  # principal and id
Items = dict[str, dict[str, Any] | None]  # by id: status and code; None until it ends


@dataclass(slots=True)
class _Batch:
    fingerprint: bytes
    writer: AnswerWriter
    ended: Items

    def facts(self) -> dict[str, Any]:
        items = [{"id": item_id, **end} for item_id, end in self.ended.items() if end is not None]
        answered = sum(1 for item in items if item["status"] == 200)
        return {"answered": answered, "failed": len(items) - answered, "items": items}


class Batches:
    """An OutcomeListener that sums up. From any thread; calls nobody but the batch's own writer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Key, _Batch] = {}

    def begin(self, key: Key, fingerprint: bytes, item_ids: Sequence[str], writer: AnswerWriter) -> bool:
        """Wait for these jobs; False where the very same batch is in flight already.

        Raises Refusal: 409 where its id belongs to another batch in flight.
        """
        with self._lock:
            other = self._open.get(key)
            if other is not None:
                if other.fingerprint == fingerprint:
                    return False
                raise Refusal(409, "id_in_use", f"id {key[1]!r} belongs to another batch in flight")
            self._open[key] = _Batch(fingerprint, writer, dict.fromkeys(item_ids))
            return True

    def item_ended(self, key: Key, status: int, code: str = "") -> None:
        """One job came to its end; whoever waited for it hears the summary when it was the last."""
        complete = []
        with self._lock:
            for batch_key, batch in self._of_item(key):
                if batch.ended[key[1]] is None:
                    batch.ended[key[1]] = {"status": status, "code": code} if code else {"status": status}
                if None not in batch.ended.values():
                    complete.append(self._open.pop(batch_key))
        for batch in complete:
            _sum_up(batch)

    def item_refused(self, key: Key, item_id: str, refusal: Refusal) -> None:
        """An item became no job. One of its id may be another batch's, and in flight: that goes on waiting for it."""
        with self._lock:
            batch = self._open.get(key)
            if batch is None or batch.ended[item_id] is not None:
                return
            batch.ended[item_id] = {"status": refusal.status, "code": refusal.code}
            if None in batch.ended.values():
                return
            del self._open[key]
        _sum_up(batch)

    def job_ended(self, outcome: Outcome) -> None:
        """As an OutcomeListener."""
        self.item_ended((outcome.principal, outcome.job_id), outcome.status, outcome.code)

    def has(self, key: Key) -> bool:
        """Whether such a batch is in flight."""
        with self._lock:
            return key in self._open

    def unfinished(self, key: Key) -> list[str]:
        """Ids of the batch's jobs that have not ended; empty where there is no such batch in flight."""
        with self._lock:
            batch = self._open.get(key)
            return [item_id for item_id, end in batch.ended.items() if end is None] if batch is not None else []

    def progress(self, key: Key) -> dict[str, Any] | None:
        """What the summary would say now; None where there is no such batch in flight."""
        with self._lock:
            batch = self._open.get(key)
            return None if batch is None else batch.facts()

    def write_down(self, key: Key, record: Callable[[Items], AnswerRecord]) -> None:
        """Have the summary recorded, where the batch is in flight: `record` is told how each item has ended.

        It cannot end meanwhile: a summary that was sent already would leave a record that never ends.
        """
        with self._lock:
            batch = self._open.get(key)
            if batch is not None:
                batch.writer.record = record(dict(batch.ended))

    def _of_item(self, key: Key) -> Iterator[tuple[Key, _Batch]]:
        principal, item_id = key
        for batch_key, batch in list(self._open.items()):
            if batch_key[0] == principal and item_id in batch.ended:
                yield batch_key, batch


def _sum_up(batch: _Batch) -> None:
    batch.writer.done({"op": "batch", **fitting(batch.writer, batch.facts())})


def fitting(writer: AnswerWriter, facts: dict[str, Any]) -> dict[str, Any]:
    """What a message has room for: without the items, the counts remain, and each item can be asked for."""
    if writer.fits(writer.done_frame(facts)):
        return facts
    return {name: value for name, value in facts.items() if name != "items"}
