"""The worker's loop: one engine stepped for all jobs that run, and what it draws handed to each job's caller."""

import logging
import time
from typing import Any

from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.serving.answer_cache import KnownAnswer
from edgebit.daemon.serving.answering import AnsweringEngine, Generating
from edgebit.daemon.serving.endings import Endings
from edgebit.daemon.serving.finishing import Finishing
from edgebit.daemon.serving.job import Job
from edgebit.daemon.serving.scheduler import Scheduler
from edgebit.daemon.serving.work import PassFigures
from edgebit.errors import EdgebitError
from edgebit.runtime.eval_errors import Cancelled
from edgebit.runtime.generation import Answer

log = logging.getLogger("edgebit.batch_loop")

_EXPECTED = (Refusal, EdgebitError, MemoryError)  # anything else is a fault of ours
_WARM_UP = "warm-up of the daemon itself"  # no principal has blanks in its name


class _Recalled:
    """An answer that was made before."""

    prompt_left = 0

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.done = True
        self.error: EdgebitError | None = None

    def cancel(self) -> str:
        """There is nothing to end."""
        return ""


class BatchLoop:
    """Steps the running jobs until the scheduler says stop. An engine's fault ends the jobs in that pass, no others."""

    def __init__(
        self,
        scheduler: Scheduler,
        engine: AnsweringEngine[Any],
        endings: Endings,
        finishing: Finishing,
    ) -> None:
        self._scheduler = scheduler
        self._engine = engine
        self._endings = endings
        self._finishing = finishing
        self._generations: dict[Job, Generating] = {}
        self._threads = 0

    def warm_up(self) -> None:
        """Answer a short prompt of our own: pages of the model come into memory, and the pace is measured.

        Raises EngineError where the engine does not work.
        """
        request, ids = self._engine.warm_up()
        for number in range(2):
            generation = self._engine.begin(request, ids, Answer(prompt_tokens=len(ids)), f"{_WARM_UP} {number}")
            try:
                while not generation.done:
                    figures = self._step([generation], None)[1]
                    if number:  # pages are read in the first, which is no measure
                        self._scheduler.end_pass(figures)
            finally:
                self._engine.forget(generation)

    def run(self) -> None:
        """Until stop() and the last job's end."""
        while self._scheduler.wait():
            while (job := self._scheduler.next_job()) is not None:
                self._begin(job)
            todo = self._scheduler.begin_pass()
            for job in todo.refused:
                self._end(job, job.refusal)
            if todo.jobs:
                self._set_threads(todo.threads)
                self._pass(todo.jobs, todo.prompt_most)
                self._keep()

    def _begin(self, job: Job) -> None:
        try:
            if not job.ids or job.conversation_key is not None:  # it came before the model, or before other turns
                self._scheduler.read_prompt(job, self._engine)
            owner = self._scheduler.owner(job)
            job.known = job.known or self._scheduler.answers.find(owner, job.answer_key)
            if job.known is not None:
                self._recall(job, job.known)
            else:
                self._generations[job] = self._engine.begin(job.request, job.ids, job.answer, owner)
        except _EXPECTED as error:
            self._end(job, error)
        except Exception as error:
            log.exception("job %s cannot begin, by a fault of ours", job.address.id)
            self._end(job, error)

    def _recall(self, job: Job, known: KnownAnswer) -> None:
        """Give an answer that is known."""
        job.answer = known.recalled(len(job.ids))
        self._hand_out(job, _Recalled(job.answer), [known.text], time.monotonic())

    def _pass(self, jobs: list[Job], prompt_most: int | None) -> None:
        """One pass for all of them; where it fails, it has failed for each."""
        before = [self._computed(job) for job in jobs]
        began = time.monotonic()
        fault: Exception | None = None
        shown: list[tuple[Generating, list[str]]] = []
        figures = PassFigures(took_s=0.0)
        try:
            shown, figures = self._step([self._generations[job] for job in jobs], prompt_most)
        except Cancelled:
            pass  # nobody in this pass waits for it any longer
        except _EXPECTED as error:
            fault = error
        except Exception as error:
            log.exception("a pass failed by a fault of ours")
            fault = error
        ended = time.monotonic()
        self._scheduler.end_pass(figures)
        self._charge(began, ended, jobs, before)
        for job in jobs:
            if fault is not None:
                self._end(job, fault)
        jobs_of = {id(generation): job for job, generation in self._generations.items()}
        for generation, pieces in shown:
            self._hand_out(jobs_of[id(generation)], generation, pieces, ended)

    def _step(
        self, generations: list[Generating], prompt_most: int | None
    ) -> tuple[list[tuple[Generating, list[str]]], PassFigures]:
        left = sum(map(_to_compute, generations))
        decoding = sum(not each.prompt_left for each in generations)
        began = time.monotonic()
        shown = self._engine.step(generations, prompt_most)
        figures = PassFigures(
            took_s=time.monotonic() - began,
            prompt_tokens=left - sum(map(_to_compute, generations)),
            decoding=decoding,
            drawn=sum(len(pieces) for _, pieces in shown),
        )
        return shown, figures

    def _hand_out(self, job: Job, generation: Generating, pieces: list[str], now: float) -> None:
        """Send what was drawn; a job whose answer is complete ends."""
        if job.first_token is None:
            job.first_token = now
        job.unseen += pieces
        fault: Exception | None = generation.error
        if fault is None and not generation.done:
            try:
                self._endings.show(job, last=False)
            except _EXPECTED as error:
                fault = error
            except Exception as error:
                log.exception("job %s failed by a fault of ours", job.address.id)
                fault = error
        if fault is not None or generation.done:
            self._end(job, fault)

    def _end(self, job: Job, why: Exception | None) -> None:
        """Take a job out of the engine: its answer is complete, or there is none."""
        generation = self._generations.pop(job, None)
        try:
            if generation is not None:
                if not generation.done:
                    generation.cancel()
                self._engine.end(generation)
        except Exception as error:
            log.exception("job %s has not given its place in the engine back", job.address.id)
            why = why or error
        self._scheduler.left(job)
        self._finishing.hand_over(job, why)

    def _computed(self, job: Job) -> int:
        """Tokens of prompt and answer so far, without those that were known."""
        return len(job.ids) - _to_compute(self._generations[job]) + len(job.answer.tokens)

    def _charge(self, began: float, ended: float, jobs: list[Job], before: list[int]) -> None:
        """Tell the ledger what part of a pass each job had: its tokens among all."""
        tokens = {job.key: max(self._computed(job) - then, 1) for job, then in zip(jobs, before, strict=True)}
        everyones = sum(tokens.values())
        self._endings.ledger.record(began, ended, {key: count / everyones for key, count in tokens.items()})

    def _set_threads(self, threads: int) -> None:
        if threads != self._threads:
            self._engine.set_threads(threads)
            self._threads = threads

    def _keep(self) -> None:
        """The answers are out and their jobs no longer in flight: what goes wrong here fails nothing."""
        try:
            self._engine.keep()
        except Exception:
            log.exception("what was computed for an answer is not kept")


def _to_compute(generation: Generating) -> int:
    """Tokens of its prompt that are to be computed, and those that need not be: what falls is what was computed."""
    return generation.prompt_left + generation.answer.reused_tokens
