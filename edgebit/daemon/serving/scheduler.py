"""Which jobs are taken, which run, and when: a bounded fair queue before one engine, for a loop that steps it.

A job is submitted, which reserves its place, and released, which lets it run: what has to be on disk before that is
written in between. The loop (batch_loop) takes jobs whose turn it is, and steps those that run together.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgebit.daemon.admission.input_checks import check_length
from edgebit.daemon.config.sections import LimitsConfig, ServingConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.serving.answering import AnsweringEngine
from edgebit.daemon.serving.endings import Endings
from edgebit.daemon.serving.fair_queue import FairQueue
from edgebit.daemon.serving.job import CANCELLED, SHUTTING_DOWN, Job, JobKey
from edgebit.daemon.serving.work import NOTHING, Pace, PassFigures, PassTotals, Work, before_done, smoothed
from edgebit.errors import EdgebitError
from edgebit.runtime.generation import Answer

HOT_RETRY_MS = 30_000
LEAST_RETRY_MS = 500


@dataclass(frozen=True, slots=True)
class Load:
    """What is going on."""

    running: int  # jobs
    queue_len: int  # jobs that wait
    tok_s: float | None  # drawn now, over all that run; None where nothing is decoded
    eta_ms: int | None  # until all that was taken is answered; None: not known
    busy_s: float = 0.0  # that the engine has computed since the start, pauses left out


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A job in flight."""

    state: Literal["queued", "running"]
    position: int  # jobs that run, or come before it, while it waits
    completion_tokens: int
    eta_ms: int | None  # until it ends, about; None: not known


@dataclass(frozen=True, slots=True)
class Pass:
    """What the loop is to do next."""

    jobs: list[Job]  # to step together
    refused: list[Job]  # to end
    threads: int  # for the engine; 0: all
    prompt_most: int | None  # tokens of prompts while others decode


class Scheduler:
    """All but the part "For the loop" may be called from any thread."""

    def __init__(
        self,
        limits: LimitsConfig,
        serving: ServingConfig,
        endings: Endings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._serving = serving
        self._endings = endings
        self._clock = clock
        self._lock = threading.Condition()
        self._engine: AnsweringEngine[Any] | None = None
        self._jobs: dict[JobKey, Job] = {}  # in flight: held, waiting and running
        self._held: dict[JobKey, Job] = {}
        self._queue: FairQueue[Job] = FairQueue()
        self._running: list[Job] = []
        self._pass: list[Job] = []  # those in the engine's hands now
        self._levers = Levers()
        self._rest_until = 0.0  # the engine pauses until then
        self._pass_s = 0.0  # how long the last pass took
        self._totals = PassTotals()
        self._tok_s: float | None = None
        self._stop_at: float | None = None  # when what still runs is ended; None: nobody has asked to stop
        self._pace = Pace()
        self.step_at: float | None = None  # since when the engine computes, in monotonic seconds; None: it does not

    def set_engine(self, engine: AnsweringEngine[Any]) -> None:
        """Begin to answer: jobs that came while the model was loading have waited in the queue."""
        with self._lock:
            self._engine = engine
            self._lock.notify_all()

    # ---- taking jobs ----

    def submit(self, job: Job) -> None:
        """Keep a place for a job, which release() lets run.

        Raises Refusal: 400 and 422 for a prompt that cannot be answered, 409 where its id is in flight, 429 where the
        principal has enough jobs waiting, 503 where the queue is full, the deadline cannot be met, it is too hot, or
        the device stops.
        """
        if self._engine is not None:
            self.read_prompt(job, self._engine)
        with self._lock:
            if self._stop_at is not None:
                raise SHUTTING_DOWN
            if job.key in self._jobs:
                raise Refusal(409, "id_in_use", f"id {job.address.id!r} belongs to another request in flight")
            now = self._clock()
            job.work = self._pace.expected(len(job.ids), job.request.max_tokens)
            self._check_room(job, now)
            self._hold(job, now)

    def resubmit(self, job: Job) -> None:
        """Put a job back that was taken on before a restart: its place is not refused. release() lets it run."""
        with self._lock:
            job.work = self._pace.expected(0, job.request.max_tokens)
            self._hold(job, self._clock())

    def release(self, jobs: Iterable[Job]) -> None:
        """Let jobs run that submit() has kept a place for. One that has been ended meanwhile stays so."""
        with self._lock:
            for job in jobs:
                self._endings.count("admitted")
                if self._held.get(job.key) is job:
                    del self._held[job.key]
                    self._queue.push(job, job.address.principal, job.work, job.request.priority, self._clock())
            self._lock.notify_all()

    def withdraw(self, job: Job) -> bool:
        """Give a place back without an answer. False where the job was ended meanwhile, and so answered."""
        with self._lock:
            if self._held.get(job.key) is not job:
                return False
            del self._held[job.key], self._jobs[job.key]
            return True

    # ---- ending jobs ----

    def cancel(self, principal: str, job_id: str, refusal: Refusal = CANCELLED) -> bool:
        """End the principal's own job; its answer is the refusal. False where none of that id is in flight."""
        with self._lock:
            job = self._jobs.get((principal, job_id))
            ended = self._take_out([job], lambda _: refusal) if job is not None else []
        self._refuse(ended)
        return job is not None

    def expire(self) -> None:
        """End jobs whose deadline has passed, so that callers hear it then and not at their turn; and after stop()."""
        with self._lock:
            now = self._clock()
            stopped = self._stop_at is not None and now >= self._stop_at
            ended = self._take_out(self._jobs.values(), lambda job: SHUTTING_DOWN if stopped else job.expired(now))
            self._lock.notify_all()
        self._refuse(ended)

    def stop(self, drain_s: float = 0.0) -> None:
        """Refuse new jobs; finish what can be finished within drain_s, and answer the others with 503."""
        with self._lock:
            now = self._clock()
            self._stop_at = now + drain_s
            ended = self._take_out(self._jobs.values(), lambda job: self._fits_drain(job, drain_s))
            self._lock.notify_all()
        self._refuse(ended)

    def fail(self, reason: str) -> None:
        """There will be no engine: answer the jobs that have waited for it."""
        self._endings.last_error = reason
        with self._lock:
            ended = self._take_out(self._jobs.values(), lambda _: Refusal(503, "fault", reason))
        self._refuse(ended)

    # ---- what goes on ----

    def apply(self, levers: Levers) -> None:
        """Hold the engine back as the governor says, from the next pass on."""
        with self._lock:
            self._levers = levers
            self._rest_until = min(self._rest_until, self._clock() + self._rest_s())
            self._lock.notify_all()

    @property
    def levers(self) -> Levers:
        """As the governor has set them."""
        return self._levers

    def load(self) -> Load:
        """What is going on now."""
        with self._lock:
            running = [job.left() for job in self._running]
            waiting = sum((job.work for job in self._jobs.values() if job not in self._running), NOTHING)
            seconds = self._seconds(sum(running, waiting), len(self._jobs)) if self._jobs else 0.0
            return Load(
                running=len(self._running),
                queue_len=len(self._jobs) - len(self._running),
                tok_s=self._tok_s if self._running else None,
                eta_ms=None if seconds is None else int(1000 * seconds),
                busy_s=self._totals.busy_s,
            )

    def find(self, principal: str, job_id: str) -> Whereabouts | None:
        """Where the principal's own job is; None where none of that id is in flight."""
        with self._lock:
            job = self._jobs.get((principal, job_id))
            if job is None:
                return None
            before = self._waiting_before(job)
            eta_s = self._eta_s(job, before)
            running = job in self._running
            return Whereabouts(
                state="running" if running else "queued",
                position=0 if running else len(self._running) + len(before),
                completion_tokens=len(job.answer.tokens),
                eta_ms=None if eta_s is None else int(1000 * eta_s),
            )

    def totals(self) -> PassTotals:
        """What the engine has done so far."""
        with self._lock:
            going_s = 0.0 if self.step_at is None else self._clock() - self.step_at
            return replace(self._totals, busy_s=self._totals.busy_s + going_s)

    # ---- for the loop ----

    def wait(self) -> bool:
        """Until there is something to do; False where all is done and stop() was called."""
        with self._lock:
            while True:
                if self._stop_at is not None and not self._jobs:
                    return False
                rest_s = self._rest_until - self._clock()
                if any(job.refusal is not None for job in self._running):
                    return True
                if rest_s <= 0 and self._engine is not None and (self._running or len(self._queue)):
                    return True
                self._lock.wait(rest_s if rest_s > 0 else None)

    def next_job(self) -> Job | None:
        """The job whose turn it is; None where none waits, all sequences are taken, or the engine rests."""
        with self._lock:
            now = self._clock()
            if self._engine is None or len(self._running) >= self._engine.sequences or now < self._rest_until:
                return None
            job = self._queue.pop(now)
            if job is not None:
                job.started = now
                self._running.append(job)
            return job

    def begin_pass(self) -> Pass:
        """What to do next; the engine is asked for nothing while it rests."""
        with self._lock:
            now = self._clock()
            for job in self._running:
                job.refusal = job.refusal or job.expired(now)
            refused = [job for job in self._running if job.refusal is not None]
            resting = now < self._rest_until
            self._pass = [] if resting else [job for job in self._running if job.refusal is None]
            self.step_at = now if self._pass else None
            if self._engine is not None:
                self._engine.cancel_reset()
            most = self._pace.prompt_most(self._serving.stall_ms / 1000)
            return Pass(list(self._pass), refused, self._levers.threads, most)

    def end_pass(self, done: PassFigures) -> None:
        """After each pass. It is followed by a rest, if need be."""
        with self._lock:
            self._pass = []
            self.step_at = None
            self._pass_s = done.took_s
            self._totals = self._totals.with_pass(done)
            self._pace.record_pass(done)
            if done.drawn and done.took_s > 0:
                self._tok_s = smoothed(self._tok_s, done.drawn / done.took_s)
            self._rest_until = self._clock() + self._rest_s()

    def ended(self, job: Job) -> None:
        """Before a running job's last frame: its place is free, and its id may come again."""
        with self._lock:
            self._running.remove(job)
            del self._jobs[job.key]
            self._queue.settle(job.address.principal, job.work, job.computed_tokens())
            if job.refusal is None:
                self._pace.record_answer(len(job.answer.tokens))
            if not self._running:
                self._tok_s = None

    # ---- under the lock, but for the first ----

    def read_prompt(self, job: Job, engine: AnsweringEngine[Any]) -> None:
        """Find the prompt's tokens. Raises Refusal where they are more than the context holds, or the owner allows."""
        job.ids = request_ids(engine, job)
        job.answer = Answer(prompt_tokens=len(job.ids))
        check_length(len(job.ids), self._limits)
        if len(job.ids) >= engine.ctx_len:
            words = f"the prompt has {len(job.ids)} tokens and the context {engine.ctx_len}: shorten it"
            raise Refusal(422, "context_overflow", words)

    def _hold(self, job: Job, now: float) -> None:
        job.admitted = now
        self._jobs[job.key] = self._held[job.key] = job

    def _check_room(self, job: Job, now: float) -> None:
        if not self._levers.admit:
            words = f"the device takes no more work now: {self._levers.reason}".removesuffix(": ")
            raise Refusal(503, self._levers.closed_by or "hot", words, retryable=True, retry_after_ms=HOT_RETRY_MS)
        sequences = self._engine.sequences if self._engine is not None else 0
        principal = job.address.principal
        theirs = sum(other.address.principal == principal for other in self._jobs.values())
        waiting = len(self._jobs) - sequences
        retry_ms = self._retry_ms()
        if theirs >= self._limits.queue_per_principal_max + sequences:
            words = f"{theirs} jobs of yours are in flight already"
            raise Refusal(429, "too_many_jobs", words, retryable=True, retry_after_ms=retry_ms)
        if waiting >= self._limits.queue_max:
            words = f"{max(waiting, 0)} jobs are waiting already"
            raise Refusal(503, "queue_full", words, retryable=True, retry_after_ms=retry_ms)
        self._check_deadline(job, now)

    def _check_deadline(self, job: Job, now: float) -> None:
        if (late := job.expired(now)) is not None:
            raise late
        before = self._queue.before_new(job.address.principal, job.work, job.request.priority, now)
        eta_s = self._eta_s(job, [*before, *self._held.values()])
        alone_s = self._seconds(job.work, 1)
        if eta_s is None or alone_s is None:
            return
        left_s = job.address.deadline - now
        if eta_s > left_s:
            raise _unmeetable(eta_s, left_s, eta_s - left_s if alone_s <= left_s else None)

    def _fits_drain(self, job: Job, drain_s: float) -> Refusal | None:
        if job.key in self._held:
            return SHUTTING_DOWN
        eta_s = self._eta_s(job, self._waiting_before(job))
        return SHUTTING_DOWN if eta_s is None or eta_s > drain_s else None

    def _waiting_before(self, job: Job) -> list[Job]:
        if job in self._running:
            return []
        return list(self._queue) if job.key in self._held else self._queue.before(job, self._clock())

    def _eta_s(self, job: Job, before: Sequence[Job]) -> float | None:
        """How long until a job is answered that runs, or whose turn comes after those; None: not known."""
        own = job.left()
        others = [each.left() for each in self._running if each is not job]
        work = before_done(own, sum((each.work for each in before), NOTHING), others)
        together = self._seconds(work, len(self._jobs) + (job.key not in self._jobs))
        alone = self._seconds(own, 1)
        return None if together is None or alone is None else max(together, alone)

    def _seconds(self, work: Work, answers: int) -> float | None:
        """How long the engine takes, with so many answers in the making if it can."""
        if self._engine is None:
            return None
        answers = max(1, min(answers, self._engine.sequences))
        return self._pace.seconds(work, answers, self._levers.sustainable_tok_s, self._levers.duty)

    def _retry_ms(self) -> int:
        """About when the first of the running jobs ends."""
        seconds = [self._seconds(job.left(), len(self._running)) or 2.0 for job in self._running]
        return max(int(1000 * min(seconds, default=2.0)), LEAST_RETRY_MS)

    def _rest_s(self) -> float:
        return self._pass_s * (1 / max(self._levers.duty, 0.01) - 1)

    def _take_out(self, jobs: Iterable[Job], why: Callable[[Job], Refusal | None]) -> list[Job]:
        """Mark jobs for their end; gives those that do not run, which are the caller's to answer, without the lock.

        Running ones are ended by the loop, before the next pass. A pass that nobody waits for any longer is cut short.
        """
        gone = []
        for job in list(jobs):
            if job.refusal is not None or (refusal := why(job)) is None:
                continue
            job.refusal = refusal
            if job not in self._running:
                if self._held.pop(job.key, None) is None:
                    self._queue.remove(job)
                del self._jobs[job.key]
                gone.append(job)
        if self._engine is not None and self._pass and all(job.refusal is not None for job in self._pass):
            self._engine.cancel()
        self._lock.notify_all()
        return gone

    def _refuse(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            assert job.refusal is not None
            self._endings.refuse(job, job.refusal)


def _unmeetable(eta_s: float, left_s: float, wait_s: float | None) -> Refusal:
    """A deadline that cannot be met, or only by a request that comes wait_s later."""
    return Refusal(
        503,
        "deadline_unmeetable",
        f"the answer would be there in {eta_s:.1f} s, and nobody waits for it longer than {left_s:.1f} s",
        retryable=wait_s is not None,
        retry_after_ms=None if wait_s is None else max(int(1000 * wait_s), LEAST_RETRY_MS),
        details={"eta_ms": int(1000 * eta_s)},
    )


def request_ids(engine: AnsweringEngine[Any], job: Job) -> list[int]:
    """Token ids of a job's prompt. Raises Refusal where the model's template does not allow its messages."""
    try:
        return engine.request_ids(job.request)
    except EdgebitError as error:
        raise Refusal(400, "bad_messages", str(error)) from error
