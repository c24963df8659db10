"""Which jobs are taken, which run, and when: a bounded fair queue before one engine, for a loop that steps it.

A job is submitted, which reserves its place, and released, which lets it run: what has to be on disk before that is
written in between. The loop (batch_loop) takes jobs whose turn it is, and steps those that run together.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgebit.daemon.config.sections import LimitsConfig, ServingConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.serving.answer_cache import AnswerCache
from edgebit.daemon.serving.answering import AnsweringEngine
from edgebit.daemon.serving.conversations import Conversations
from edgebit.daemon.serving.endings import Endings
from edgebit.daemon.serving.estimates import Estimates
from edgebit.daemon.serving.fair_queue import FairQueue
from edgebit.daemon.serving.job import CANCELLED, SHUTTING_DOWN, Job, JobKey
from edgebit.daemon.serving.load import Load, Whereabouts
from edgebit.daemon.serving.prompts import read_prompt
from edgebit.daemon.serving.room import check_open, check_places
from edgebit.daemon.serving.turn_order import TurnOrder
from edgebit.daemon.serving.work import NOTHING, PassFigures, PassTotals, smoothed

ENDING_MAX = 8  # jobs on their way out: where the disk is slower than the engine, others wait where turns are fair


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
        self.answers = AnswerCache(serving.answer_cache_mib << 20, serving.answer_cache_s, clock)
        self.conversations = Conversations(serving.sessions_max, serving.session_idle_s, clock)
        self._engine: AnsweringEngine[Any] | None = None
        self._jobs: dict[JobKey, Job] = {}  # in flight: held, waiting and running
        self._taken = NOTHING  # the work of all of them, as expected
        self._held: dict[JobKey, Job] = {}
        self._known: list[Job] = []  # whose answers are known
        self._turns = TurnOrder()
        self._queue: FairQueue[Job] = FairQueue()
        self._running: list[Job] = []
        self._ending: set[Job] = set()  # out of the engine, and not yet answered
        self._pass: list[Job] = []  # those in the engine's hands now
        self._rest_until = 0.0  # the engine pauses until then
        self._pass_s = 0.0  # how long the last pass took
        self._totals = PassTotals()
        self._tok_s: float | None = None
        self._stop_at: float | None = None  # when what still runs is ended; None: nobody has asked to stop
        self.step_at: float | None = None  # since when the engine computes, in monotonic seconds; None: it does not
        self._estimates = Estimates()

    def set_engine(self, engine: AnsweringEngine[Any]) -> None:
        """Begin to answer: jobs that came while the model was loading have waited in the queue."""
        with self._lock:
            self._engine = engine
            self._estimates.sequences = engine.sequences
            self._lock.notify_all()

    def read_prompt(self, job: Job, engine: AnsweringEngine[Any]) -> None:
        """Find the prompt's tokens. Raises Refusal as prompts.read_prompt() does."""
        read_prompt(job, engine, self.conversations, self._limits)

    def owner(self, job: Job) -> str:
        """For whom its prompt and answer are computed, and so whom they may serve again; empty: everybody."""
        return "" if self._serving.share_prefixes else job.address.principal

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
            job.work = self._estimates.pace.expected(len(job.ids), job.request.max_tokens)
            self._check_room(job, now)
            self._hold(job, now)

    def resubmit(self, job: Job) -> None:
        """Put a job back that was taken on before a restart: its place is not refused. release() lets it run."""
        with self._lock:
            job.work = self._estimates.pace.expected(0, job.request.max_tokens)
            self._hold(job, self._clock())

    def release(self, jobs: Iterable[Job]) -> None:
        """Let jobs run that submit() has kept a place for. One that has been ended meanwhile stays so."""
        with self._lock:
            for job in jobs:
                self._endings.count("admitted")
                if self._held.get(job.key) is job:
                    del self._held[job.key]
                    self._let_wait(job)
            self._lock.notify_all()

    def withdraw(self, job: Job) -> bool:
        """Give a place back without an answer. False where the job was ended meanwhile, and so answered."""
        with self._lock:
            if self._held.get(job.key) is not job:
                return False
            del self._held[job.key]
            self._leave(job)
            return True

    # ---- ending jobs ----

    def cancel(self, principal: str, job_id: str, refusal: Refusal = CANCELLED) -> bool:
        """End the principal's own job; its answer is the refusal. False where none of that id is in flight."""
        with self._lock:
            job = self._jobs.get((principal, job_id))
            found = job is not None and job not in self._ending
            ended = self._take_out([job], lambda _: refusal) if job is not None else []
        self._refuse(ended)
        return found

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
            self._estimates.levers = levers
            self._rest_until = min(self._rest_until, self._clock() + self._rest_s())
            self._lock.notify_all()

    @property
    def levers(self) -> Levers:
        """As the governor has set them."""
        return self._estimates.levers

    def load(self) -> Load:
        """What is going on now."""
        with self._lock:
            running = [job.left() for job in self._running]
            begun = {*self._running, *self._ending}
            waiting = self._taken - sum((job.work for job in begun), NOTHING)
            seconds = self._estimates.seconds(sum(running, waiting), len(self._jobs)) if self._jobs else 0.0
            return Load(
                running=len(self._running),
                queue_len=len(self._jobs) - len(begun),
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
            running = job in self._running or job in self._ending
            return Whereabouts(
                state="running" if running else "queued",
                position=0 if running else len(self._running) + len(before),
                completion_tokens=len(job.answer.tokens),
                eta_ms=None if eta_s is None else int(1000 * eta_s),
            )

    def has(self, key: JobKey) -> bool:
        """Whether such a job is in flight."""
        with self._lock:
            return key in self._jobs

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
                if self._known or (rest_s <= 0 and self._engine is not None and self._has_work()):
                    return True
                self._lock.wait(rest_s if rest_s > 0 else None)

    def next_job(self) -> Job | None:
        """The job whose turn it is; None where none waits, all sequences are taken, or the engine rests."""
        with self._lock:
            now = self._clock()
            job = self._known.pop(0) if self._known else self._pop(now)
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
            most = self._estimates.pace.prompt_most(self._serving.stall_ms / 1000)
            return Pass(list(self._pass), refused, self._estimates.levers.threads, most)

    def end_pass(self, done: PassFigures) -> None:
        """After each pass. It is followed by a rest, if need be."""
        with self._lock:
            self._pass = []
            self.step_at = None
            self._pass_s = done.took_s
            self._totals = self._totals.with_pass(done)
            self._estimates.pace.record_pass(done)
            if done.drawn and done.took_s > 0:
                self._tok_s = smoothed(self._tok_s, done.drawn / done.took_s)
            self._rest_until = self._clock() + self._rest_s()

    def left(self, job: Job) -> None:
        """A running job has left the engine, and is to be ended: its place is free."""
        with self._lock:
            self._running.remove(job)
            self._ending.add(job)
            if job.had_turn:
                self._queue.settle(job.address.principal, job.work, job.computed_tokens())
            if job.refusal is None and not job.cached:
                self._estimates.pace.record_answer(len(job.answer.tokens))
            if not self._running:
                self._tok_s = None

    def ended(self, job: Job) -> None:
        """Before the last frame of a job that has left: its id may come again, and its conversation goes on."""
        with self._lock:
            self._ending.remove(job)
            self._leave(job)
            self._lock.notify_all()

    # ---- under the lock ----

    def _hold(self, job: Job, now: float) -> None:
        job.admitted = now
        self._jobs[job.key] = self._held[job.key] = job
        self._taken += job.work
        self._turns.enter(job)

    def _let_wait(self, job: Job) -> None:
        """For its turn; but what is known already can be said at once."""
        if job.conversation_key is None:
            job.known = self.answers.find(self.owner(job), job.answer_key)
        if job.known is not None:
            self._taken -= job.work
            job.work = NOTHING
            self._known.append(job)
        else:
            self._queue.push(job, job.address.principal, job.work, job.request.priority, self._clock())

    def _has_work(self) -> bool:
        return bool(self._running) or (self._has_room() and self._queue.has(self._turns.is_next))

    def _has_room(self) -> bool:
        return len(self._running) < self._estimates.sequences and len(self._ending) < ENDING_MAX

    def _pop(self, now: float) -> Job | None:
        if not self._has_room() or now < self._rest_until:
            return None
        job = self._queue.pop(now, self._turns.is_next)
        if job is not None:
            job.had_turn = True
        return job

    def _leave(self, job: Job) -> None:
        del self._jobs[job.key]
        self._taken -= job.work
        self._turns.leave(job)

    def _check_room(self, job: Job, now: float) -> None:
        check_open(self._estimates.levers)
        principal = job.address.principal
        theirs = sum(other.address.principal == principal for other in self._jobs.values())
        in_flight = len(self._jobs) - len(self._ending)
        retry_ms = self._estimates.retry_ms(self._running)
        check_places(self._limits, self._estimates.sequences, theirs, in_flight, retry_ms)
        if (late := job.expired(now)) is not None:
            raise late
        if self._estimates.surely_in_time(job, self._taken, now):
            return
        before = self._queue.before_new(principal, job.work, job.request.priority, now)
        before += self._held.values()
        self._estimates.check_deadline(job, before, self._running, len(self._jobs) + 1, now)

    def _fits_drain(self, job: Job, drain_s: float) -> Refusal | None:
        if job.key in self._held:
            return SHUTTING_DOWN
        eta_s = self._eta_s(job, self._waiting_before(job))
        return SHUTTING_DOWN if eta_s is None or eta_s > drain_s else None

    def _waiting_before(self, job: Job) -> list[Job]:
        if job in self._running or job in self._ending or job in self._known:
            return []
        return list(self._queue) if job.key in self._held else self._queue.before(job, self._clock())

    def _eta_s(self, job: Job, before: Sequence[Job]) -> float | None:
        return self._estimates.eta_s(job, before, self._running, len(self._jobs))

    def _rest_s(self) -> float:
        return self._pass_s * (1 / max(self._estimates.levers.duty, 0.01) - 1)

    def _take_out(self, jobs: Iterable[Job], why: Callable[[Job], Refusal | None]) -> list[Job]:
        """Mark jobs for their end; gives those that do not run, which are the caller's to answer, without the lock.

        Running ones are ended by the loop, before the next pass. A pass that nobody waits for any longer is cut short.
        """
        gone = []
        for job in list(jobs):
            if job.refusal is not None or job in self._ending or (refusal := why(job)) is None:
                continue
            job.refusal = refusal
            if job not in self._running:
                if self._held.pop(job.key, None) is None:
                    self._queue.remove(job)
                    self._known = [each for each in self._known if each is not job]
                self._leave(job)
                gone.append(job)
        if self._engine is not None and self._pass and all(job.refusal is not None for job in self._pass):
            self._engine.cancel()
        self._lock.notify_all()
        return gone

    def _refuse(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            assert job.refusal is not None
            self._endings.refuse(job, job.refusal)
