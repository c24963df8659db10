"""How jobs end: the last frame, the counters, and the outcome told to whoever listens; once for each job."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from edgebit.daemon.assistant.assistant import Assistant
from edgebit.daemon.contract.frames import AnswerWriter, Publisher
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.serving.job import Job, JobKey
from edgebit.daemon.serving.outcome import Outcome, OutcomeListener
from edgebit.errors import EdgebitError
from edgebit.runtime.eval_errors import ContextFullError

log = logging.getLogger("edgebit.scheduler")


class EnergyLedger(Protocol):
    """Knows what power was drawn when, and so what each job has drawn. Called in several threads."""

    def record(self, begin_s: float, end_s: float, shares: Mapping[JobKey, float]) -> None:
        """A pass of the engine, in monotonic seconds, and the part of each job in it; together they are 1."""

    def close(self, key: JobKey) -> Energy:
        """What a job has drawn in all; it is forgotten then."""


class Endings:
    """Ends jobs, from any thread. Each must be ended by one thread only, once."""

    def __init__(self, publisher: Publisher, device: str, *, ledger: EnergyLedger, assistant: Assistant) -> None:
        self._publisher = publisher
        self._device = device
        self._assistant = assistant
        self._lock = threading.Lock()  # of the counters
        self.ledger = ledger
        self.listeners: list[OutcomeListener] = []
        self.counters: Counter[str] = Counter()
        self.last_error: str | None = None

    def writer(self, job: Job) -> AnswerWriter:
        """The job's writer, made at the first use."""
        if job.writer is None:
            job.writer = AnswerWriter(
                self._publisher,
                self._device,
                job.address,
                stream=job.request.stream,
                format=job.request.format,
                chat=job.request.op == "chat",
                seq=1 if job.request.ack and job.request.format == "json" else 0,
                record=job.record,
            )
        return job.writer

    def show(self, job: Job, *, last: bool) -> None:
        """Send what was drawn, as far as the job's filter lets it go; only the last call waits for verdicts.

        Raises Refusal where the answer may not go on.
        """
        unseen, job.unseen = job.unseen, []
        if job.request.op == "assist":
            if last:
                self._speak(job)
            return
        writer = self.writer(job)
        for piece in unseen:
            shown = job.filter.push(piece) if job.filter is not None else piece
            job.text += shown
            writer.push(shown)
        if last and job.filter is not None:
            rest = job.filter.finish()
            job.text += rest
            writer.push(rest)

    def _speak(self, job: Job) -> None:
        """Say what the complete answer comes to; all of it is filtered as it is told, not as the model spelled it."""
        job.said = said = self._assistant.reply(job.request.messages[-1].content, job.answer)
        if job.filter is not None:
            for text in said.texts():
                job.filter.push(f"{text}\n")
            job.filter.finish()
        job.text = said.text
        self.writer(job).push(said.text)

    def count(self, what: str) -> None:
        """Count something that is no end."""
        with self._lock:
            self.counters[what] += 1

    def done(self, job: Job) -> None:
        """The answer has come to its end."""
        energy = self.ledger.close(job.key)
        body = {"done_reason": job.answer.done_reason, **job.figures(), "energy": energy.to_json(job.completion_tokens)}
        if job.said is not None:
            body |= job.said.to_json()
        if job.conversation is not None:
            body["session"] = {"id": job.request.session, **job.conversation.figures()}
        self.writer(job).done(body, job.text)
        self._tell(job, 200, "", energy)

    def refuse(self, job: Job, refusal: Refusal) -> None:
        """The job is refused, late or cancelled."""
        if job.filter is not None:
            job.filter.close()
        energy = self.ledger.close(job.key)
        body = job.figures()
        if job.started is not None:
            body["energy"] = energy.to_json(job.completion_tokens)
        self.writer(job).error(refusal, body)
        self._tell(job, refusal.status, refusal.code, energy)

    def fail(self, job: Job, error: Exception) -> None:
        """Something went wrong in it: a fault of the engine or of ours, or what only the engine could see."""
        refusal = refusal_for(error)
        if refusal.status >= 500:
            self.last_error = f"{refusal.code}: {refusal}"
            log.error("job %s: %s", job.address.id, self.last_error)
        self.refuse(job, refusal)

    def _tell(self, job: Job, status: int, code: str, energy: Energy) -> None:
        answer, now = job.answer, time.monotonic()
        outcome = Outcome(
            principal=job.address.principal,
            job_id=job.address.id,
            op=job.request.op,
            status=status,
            code=code,
            prompt_tokens=answer.prompt_tokens,
            reused_tokens=answer.reused_tokens,
            completion_tokens=job.completion_tokens,
            cacheable=job.answer_key is not None,
            from_cache=job.cached,
            queued_s=(job.started if job.started is not None else now) - job.admitted,
            first_token_s=None if job.first_token is None else job.first_token - job.admitted,
            prompt_s=answer.prompt_ns / 1e9,
            decode_s=answer.decode_ns / 1e9,
            total_s=now - job.admitted,
            energy=energy,
        )
        with self._lock:
            self._count(outcome)
        for listener in self.listeners:
            try:
                listener.job_ended(outcome)
            except Exception:
                log.exception("the end of job %s was not taken note of", job.address.id)

    def _count(self, outcome: Outcome) -> None:
        if outcome.status != 200:
            self.counters[outcome.code] += 1
            self.counters["failed"] += outcome.status in (500, 507)
            return
        self.counters["answered"] += 1
        self.counters["prompt_tokens"] += outcome.prompt_tokens
        self.counters["answer_tokens"] += outcome.completion_tokens


def refusal_for(error: Exception) -> Refusal:
    """What a caller is told of an exception."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ContextFullError):
        return Refusal(422, "context_overflow", str(error))
    if isinstance(error, MemoryError):
        return Refusal(507, "memory", "the device has too little memory for this request")
    if isinstance(error, EdgebitError):
        return Refusal(500, "engine", str(error))
    return Refusal(500, "internal", "the daemon failed; its log says how")
