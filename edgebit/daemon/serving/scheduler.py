"""Jobs in order of arrival through one engine: a bounded queue, cancel, deadlines, and an answer for each job."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from edgebit.daemon.contract.frames import AnswerRecord, AnswerWriter, Publisher
from edgebit.daemon.contract.messages import Address, GenerateRequest, Refusal
from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.serving.outcome import Outcome, OutcomeListener
from edgebit.errors import EdgebitError
from edgebit.runtime.generation import Answer
from edgebit.runtime.native import ContextFullError

log = logging.getLogger("edgebit.scheduler")

CANCELLED = Refusal(499, "cancelled", "cancelled by the caller")
SHUTTING_DOWN = Refusal(503, "shutting_down", "the device is shutting down", retryable=True, retry_after_ms=10_000)


class AnsweringEngine(Protocol):
    """What the scheduler needs of a model; runtime's Session behind engine.LoadedModel has it."""

    def request_ids(self, request: GenerateRequest) -> list[int]:
        """Token ids of the prompt. Raises EngineError where the model's template does not allow the messages."""

    def generate(
        self, request: GenerateRequest, ids: Sequence[int], answer: Answer, cancelled: Callable[[], bool]
    ) -> Iterator[str]:
        """The text piece by piece, filling in `answer`."""

    def keep(self) -> None:
        """Keep what the last prompt and answer came to, for prompts that begin alike. It may take a moment."""

    def cancel(self) -> None:
        """End what generate() is doing, in the middle of a prefill too. From any thread."""

    def cancel_reset(self) -> None:
        """Take back a cancel() that came too late."""


@dataclass(eq=False, slots=True, kw_only=True)
class Job:
    """One generation, from admission to its last frame."""

    address: Address
    request: GenerateRequest
    record: AnswerRecord | None = None  # told of every frame before it goes out
    released: bool = False  # the journal has it: it may run
    refusal: Refusal | None = None  # why it shall not go on
    answer: Answer = field(default_factory=lambda: Answer(prompt_tokens=0))
    admitted: float = 0.0  # monotonic seconds
    started: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Ids are each principal's own."""
        return self.address.principal, self.address.id


@dataclass(frozen=True, slots=True)
class Load:
    """What the scheduler is doing."""

    running: bool
    queue_len: int
    tok_s: float | None  # of the running answer's decode; None where nothing is decoded


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A job in flight."""

    state: Literal["queued", "running"]
    position: int  # jobs that come before it
    completion_tokens: int
    eta_ms: int | None  # until it ends, about


class Scheduler:
    """Runs jobs one after another. submit(), cancel() and stop() from any thread, run() in one of its own."""

    def __init__(self, publisher: Publisher, device: str, queue_max: int) -> None:
        self._publisher = publisher
        self._device = device
        self._queue_max = queue_max
        self._engine: AnsweringEngine | None = None
        self._lock = threading.Condition()
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._stopping = False
        self._job_s = 5.0  # smoothed time of a job, for retry_after_ms
        self.counters: Counter[str] = Counter()
        self.last_error: str | None = None
        self.listeners: list[OutcomeListener] = []

    def set_engine(self, engine: AnsweringEngine) -> None:
        """Begin to answer: jobs that came while the model was loading have waited in the queue."""
        with self._lock:
            self._engine = engine
            self._lock.notify_all()

    def submit(self, job: Job) -> None:
        """Keep a place at the queue's end for a job, which release() lets run.

        Raises Refusal: 503 where the queue is full or the device stops.
        """
        with self._lock:
            if self._stopping:
                raise SHUTTING_DOWN
            busy = self._running is not None or self._engine is None
            if len(self._queue) >= self._queue_max + (0 if busy else 1):
                raise Refusal(
                    503,
                    "queue_full",
                    f"{len(self._queue)} jobs are waiting already",
                    retryable=True,
                    retry_after_ms=max(int(1000 * self._job_s), 500),  # about when the running job ends
                )
            job.admitted = time.monotonic()
            self._queue.append(job)

    def resubmit(self, job: Job) -> None:
        """Put a job back that was taken on before a restart: its place is not refused. release() lets it run."""
        with self._lock:
            job.admitted = time.monotonic()
            self._queue.append(job)

    def release(self, jobs: Sequence[Job]) -> None:
        """Let jobs run that submit() has kept a place for. One that has been ended meanwhile stays so."""
        with self._lock:
            for job in jobs:
                job.released = True
            self.counters["admitted"] += len(jobs)
            self._lock.notify_all()

    def withdraw(self, job: Job) -> bool:
        """Give a place back without an answer. False where the job was ended meanwhile, and so answered."""
        with self._lock:
            if job not in self._queue:
                return False
            self._queue.remove(job)
            return True

    def cancel(self, principal: str, job_id: str, refusal: Refusal = CANCELLED) -> bool:
        """End the principal's own job; its answer is the refusal. False where none of that id is in flight."""
        with self._lock:
            job = next((job for job in self._in_flight() if job.key == (principal, job_id)), None)
            if job is None:
                return False
            self._end(job, refusal)
            return True

    def find(self, principal: str, job_id: str) -> Whereabouts | None:
        """Where the principal's own job is; None where none of that id is in flight."""
        with self._lock:
            for position, job in enumerate(self._in_flight()):
                if job.key == (principal, job_id):
                    running = job is self._running
                    eta_ms = int(1000 * self._job_s * (position + 1))
                    return Whereabouts("running" if running else "queued", position, len(job.answer.tokens), eta_ms)
        return None

    def expire(self) -> None:
        """End queued jobs whose deadline has passed, so that their callers hear it then and not at their turn."""
        now = time.monotonic()
        with self._lock:
            for job in [job for job in self._queue if now >= job.address.deadline]:
                self._end(job, _late(job))
            if self._running is not None and now >= self._running.address.deadline:
                self._end(self._running, _late(self._running))

    def stop(self) -> None:
        """Refuse new jobs, answer waiting and running ones with 503, and let run() return."""
        with self._lock:
            self._stopping = True
            for job in list(self._in_flight()):
                self._end(job, SHUTTING_DOWN)
            self._lock.notify_all()

    def fail(self, reason: str) -> None:
        """There will be no engine: answer the jobs that have waited for it."""
        with self._lock:
            self.last_error = reason
            for job in list(self._queue):
                self._end(job, Refusal(503, "fault", reason))

    def load(self) -> Load:
        """What is going on now."""
        with self._lock:
            job = self._running
            tok_s = None
            if job is not None and len(job.answer.tokens) > 1 and job.answer.prompt_ns:
                elapsed = time.monotonic() - job.started - job.answer.prompt_ns / 1e9
                tok_s = len(job.answer.tokens) / elapsed if elapsed > 0 else None
            return Load(job is not None, len(self._queue), tok_s)

    def run(self) -> None:
        """Answer jobs until stop(). An engine's fault ends the job, not the daemon."""
        while True:
            with self._lock:
                while not self._stopping and (self._engine is None or not any(job.released for job in self._queue)):
                    self._lock.wait()
                if self._stopping:
                    return
                engine, job = self._engine, next(job for job in self._queue if job.released)
                self._queue.remove(job)
                assert engine is not None
                engine.cancel_reset()
                self._running = job
            job.started = time.monotonic()
            try:
                self._answer(engine, job)
            finally:
                with self._lock:
                    self._running = None
                    self._job_s += 0.3 * (time.monotonic() - job.started - self._job_s)
            _keep(engine)

    def _in_flight(self) -> Iterator[Job]:
        if self._running is not None:
            yield self._running
        yield from self._queue

    def _end(self, job: Job, refusal: Refusal) -> None:
        """Under the lock: a waiting job is answered here, a running one by its own thread at the next token."""
        if job is self._running:
            if job.refusal is None:
                job.refusal = refusal
                assert self._engine is not None
                self._engine.cancel()
        else:
            self._queue.remove(job)
            self.counters[refusal.code] += 1
            self._writer(job).error(refusal)
            self._tell(job, refusal.status, refusal.code)

    def _tell(self, job: Job, status: int, code: str = "") -> None:
        outcome = Outcome(
            principal=job.address.principal,
            job_id=job.address.id,
            op=job.request.op,
            status=status,
            code=code,
            energy=Energy(joules=None, absent="not measured yet"),
        )
        for listener in self.listeners:
            listener.job_ended(outcome)

    def _writer(self, job: Job) -> AnswerWriter:
        return AnswerWriter(
            self._publisher,
            self._device,
            job.address,
            stream=job.request.stream,
            format=job.request.format,
            chat=job.request.op == "chat",
            seq=1 if job.request.ack and job.request.format == "json" else 0,
            record=job.record,
        )

    def _answer(self, engine: AnsweringEngine, job: Job) -> None:
        writer = self._writer(job)
        request, answer = job.request, job.answer
        try:
            if time.monotonic() >= job.address.deadline:
                raise _late(job)
            ids = _request_ids(engine, request)
            answer.prompt_tokens = len(ids)
            for piece in engine.generate(
                request,
                ids,
                answer,
                lambda: job.refusal is not None or time.monotonic() >= job.address.deadline,
            ):
                writer.push(piece)
            if answer.done_reason == "cancelled":
                raise job.refusal or _late(job)
        except Refusal as refusal:
            self.counters[refusal.code] += 1
            writer.error(refusal, _figures(job))
            self._tell(job, refusal.status, refusal.code)
        except ContextFullError as error:
            self.counters["context_overflow"] += 1
            writer.error(Refusal(422, "context_overflow", str(error)), _figures(job))
            self._tell(job, 422, "context_overflow")
        except MemoryError:
            self._failed(writer, job, Refusal(507, "memory", "the device has too little memory for this request"))
        except EdgebitError as error:
            self._failed(writer, job, Refusal(500, "engine", str(error)))
        except Exception:
            log.exception("job %s failed by a fault of ours", job.address.id)
            self._failed(writer, job, Refusal(500, "internal", "the daemon failed; its log says how"))
        else:
            self.counters["answered"] += 1
            self.counters["prompt_tokens"] += answer.prompt_tokens
            self.counters["answer_tokens"] += len(answer.tokens)
            writer.done({"done_reason": answer.done_reason, **_figures(job)}, answer.text)
            self._tell(job, 200)

    def _failed(self, writer: AnswerWriter, job: Job, refusal: Refusal) -> None:
        self.counters["failed"] += 1
        self.last_error = f"{refusal.code}: {refusal}"
        log.error("job %s: %s", job.address.id, self.last_error)
        writer.error(refusal, _figures(job))
        self._tell(job, refusal.status, refusal.code)


def _keep(engine: AnsweringEngine) -> None:
    """The answer is out and its job no longer in flight: what goes wrong here fails nothing."""
    try:
        engine.keep()
    except Exception:
        log.exception("what was computed for an answer is not kept")


def _request_ids(engine: AnsweringEngine, request: GenerateRequest) -> list[int]:
    try:
        return engine.request_ids(request)
    except EdgebitError as error:
        raise Refusal(400, "bad_messages", str(error)) from error


def _late(job: Job) -> Refusal:
    return Refusal(408, "expired", f"the deadline passed while the job was {'running' if job.started else 'waiting'}")


def _figures(job: Job) -> dict[str, Any]:
    """Tokens and times of a job, times in nanoseconds under Ollama's names; queue_duration is ours."""
    answer, now = job.answer, time.monotonic()
    completion = len(answer.tokens)
    return {
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": answer.prompt_tokens + completion,
        },
        "total_duration": int(1e9 * (now - job.admitted)),
        "load_duration": 0,
        "queue_duration": int(1e9 * (job.started - job.admitted)),
        "prompt_eval_count": answer.prompt_tokens,
        "prompt_eval_cached": answer.reused_tokens,
        "prompt_eval_duration": answer.prompt_ns,
        "eval_count": completion,
        "eval_duration": answer.decode_ns,
        "draft_count": answer.drafted_tokens,
        "draft_accepted": answer.accepted_tokens,
        "seed": job.request.seed,
    }
