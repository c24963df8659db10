"""Taking a job on: known or new, a place in the queue, written down, and only then acknowledged and run."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from edgebit.daemon.admission.journal import JobRecord, Journal
from edgebit.daemon.admission.journal_records import Asked, Identity, Place
from edgebit.daemon.contract.frames import Publisher
from edgebit.daemon.contract.messages import Address, GenerateRequest, Incoming, Refusal
from edgebit.daemon.contract.requests import fingerprint
from edgebit.daemon.serving.job import AnswerFilter, Job
from edgebit.daemon.serving.scheduler import Scheduler

ANSWER_BYTES = 2048  # of an answer in the journal, beside its text
TOKEN_BYTES = 8  # of the text, with room to spare
AGAIN_MAX = 64  # last frames that are read from the disk and sent again in one go


def identity_of(op: str, address: Address, incoming: Incoming) -> Identity:
    """What tells this request from others, and from itself sent again."""
    return Identity(
        principal=address.principal,
        id=address.id,
        id_given=address.id_given,
        fingerprint=fingerprint(op, incoming.payload),
        connection=incoming.connection,
        packet_id=incoming.packet_id,
    )


class Acceptance:
    """Jobs between the first look and the queue. In one thread.

    accept() as often as requests have come, then one commit() for all of them; after their acknowledgements, release().
    """

    def __init__(self, publisher: Publisher, scheduler: Scheduler, journal: Journal) -> None:
        self._publisher = publisher
        self._scheduler = scheduler
        self._journal = journal
        self._accepted: list[tuple[Job, JobRecord]] = []  # since the last commit
        self._written = False  # something for the journal to commit
        self._session_began = 0  # the number of the MQTT session's first connection
        self.ready: list[Job] = []  # committed, and not released
        self.counters: Counter[str] = Counter()

    def connected(self, number: int, session_present: bool) -> None:
        """A connection has begun: without its session, a broker sends nothing of before again."""
        if not session_present:
            self._session_began = number

    def is_redelivered(self, identity: Identity) -> bool:
        """Whether a message marked as sent again is one that was taken before, whose acknowledgement was lost."""
        if self._journal.find_redelivered(identity, self._session_began) is None:
            return False
        self.counters["repeated"] += 1
        return True

    def is_repeat(self, identity: Identity, address: Address, dup: bool) -> bool:
        """Whether a request is known already, and has been seen to. Raises Refusal where its id is another's."""
        if dup and self.is_redelivered(identity):
            return True
        entry = self._journal.entry(address.principal, address.id) if address.id_given else None
        if entry is None:
            return False
        if entry.identity.fingerprint != identity.fingerprint:
            raise Refusal(409, "id_in_use", f"id {address.id!r} belongs to another request, in flight or just answered")
        place = _place(address)
        if self._journal.join(entry, place):
            self._written = True
            self.counters["repeated"] += 1
            return True
        if entry.ended is None or entry.ended.retryable:
            return False
        self.counters["replayed"] += 1
        for message in self._journal.answer(entry).replay(place, address.deadline - time.monotonic()):
            self._publisher.publish(message)
        return True

    def accept(
        self, fields: Mapping[str, Any], job: Job, identity: Identity, guard: Callable[[], AnswerFilter | None]
    ) -> None:
        """Keep a place in the queue and write the job down. Raises Refusal where either has no room.

        guard: makes the job's filter, which may start a program: only for a job that has a place
        """
        self._scheduler.submit(job)
        request = job.request
        asked = self.asked(request.op, fields, job.address, seed=request.seed, priority=request.priority)
        try:
            job.filter = guard()
            job.record = record = self.write_down(identity, asked, job.address, _answer_bytes(request))
        except Exception:
            self._scheduler.withdraw(job)
            raise
        self._accepted.append((job, record))

    def asked(self, op: str, fields: Mapping[str, Any], address: Address, *, seed: int = 0, priority: int = 0) -> Asked:
        """A request as the journal has it."""
        return Asked(
            op=op,
            fields=fields,
            seed=seed,
            priority=priority,
            topic_given=address.topic_given,
            series=address.series,
            ttl_s=address.deadline - time.monotonic(),
            at=self._journal.now(),
        )

    def write_down(
        self, identity: Identity, asked: Asked, address: Address, answer_bytes: int = ANSWER_BYTES
    ) -> JobRecord:
        """Have the journal know a job, for good with the next commit(). Raises Refusal where it has no room."""
        self._written = True
        return self._journal.accept(identity, _place(address), asked, answer_bytes)

    def give_up(self, record: JobRecord) -> None:
        """What was written down since the last commit() did not come to anything."""
        self._journal.withdraw(record)

    def resume(self, job: Job, record: JobRecord) -> None:
        """Take a job up again that the journal knows."""
        self._scheduler.resubmit(job)
        self._accepted.append((job, record))

    def commit(self, *, at_any_cost: bool = False) -> list[tuple[Job, Refusal]]:
        """One sync for all that was written down. Gives the jobs whose place was given back, and why.

        at_any_cost: jobs that were accepted before run even if nothing can be written now
        """
        accepted, self._accepted = self._accepted, []
        written, self._written = self._written, False
        refused: list[tuple[Job, Refusal]] = []
        try:
            if written or at_any_cost:
                self._journal.commit()
        except Refusal as refusal:
            if not at_any_cost:
                refused = [(job, refusal) for job, record in accepted if self._give_back(job, record)]
        given_back = {job for job, _ in refused}
        self.ready += [job for job, _ in accepted if job not in given_back]
        return refused

    def release(self) -> None:
        """Let run what was committed."""
        ready, self.ready = self.ready, []
        self._scheduler.release(ready)

    def send_unsent(self, room: Callable[[], int]) -> None:
        """Send last frames that had no room, as far as there is some; half of it is left to what is answered now."""
        if not self._journal.has_unsent:
            return
        for message in self._journal.unsent(min(AGAIN_MAX, room() // 2)):
            self.counters["sent_again"] += 1
            self._publisher.publish(message)

    def _give_back(self, job: Job, record: JobRecord) -> bool:
        """False where the job has ended meanwhile, and so was answered."""
        if not self._scheduler.withdraw(job):
            return False
        self._journal.withdraw(record)
        return True


def _place(address: Address) -> Place:
    return Place(address.topic, address.correlation)


def _answer_bytes(request: GenerateRequest) -> int:
    """What an answer may take in the journal, about: that much of the disk is kept free for it."""
    return ANSWER_BYTES + TOKEN_BYTES * request.max_tokens * (2 if request.format == "text" else 1)
