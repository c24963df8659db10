"""How answers come to their last frame, in a thread of their own.

The disk is written before a last frame goes out, and a filter may ask a program about the whole answer: both take their
time (docs/decisions/continuous-batching.md), and no other answer waits for that.
"""

import logging
import queue

from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.serving.endings import Endings
from edgebit.daemon.serving.job import Job
from edgebit.daemon.serving.scheduler import Scheduler
from edgebit.errors import EdgebitError

log = logging.getLogger("edgebit.finishing")


class Finishing:
    """Jobs that are handed over end one after the other: answers keep the order in which they came to their end."""

    def __init__(self, scheduler: Scheduler, endings: Endings) -> None:
        self._scheduler = scheduler
        self._endings = endings
        self._waiting: queue.SimpleQueue[tuple[Job, Exception | None] | None] = queue.SimpleQueue()

    def hand_over(self, job: Job, why: Exception | None) -> None:
        """End a job that the engine is done with: with its answer, or `why` there is none."""
        self._waiting.put((job, why))

    def run(self) -> None:
        """Until close(), and the end of all that was handed over before."""
        while (ending := self._waiting.get()) is not None:
            self.finish(*ending)

    def close(self) -> None:
        """Let run() end. From any thread."""
        self._waiting.put(None)

    def finish(self, job: Job, why: Exception | None) -> None:
        """A job's last frame. What goes wrong here ends no other job; an answer that cannot be sent is a failed one."""
        if why is None:
            why = self._show_rest(job)
        if why is None:
            self._remember(job)
        self._scheduler.ended(job)
        fault = self._send_end(job, why)
        if fault is not None and why is None:
            self._send_end(job, fault)

    def _send_end(self, job: Job, why: Exception | None) -> Exception | None:
        """Send the last frame; gives the fault of ours that has kept it back."""
        try:
            if why is None:
                self._endings.done(job)
            elif isinstance(why, Refusal):
                self._endings.refuse(job, why)
            else:
                self._endings.fail(job, why)
        except Exception as error:
            log.exception("the end of job %s was not sent", job.address.id)
            return error
        return None

    def _show_rest(self, job: Job) -> Exception | None:
        """What the filter has held back; gives why it may not be shown."""
        try:
            self._endings.show(job, last=True)
        except (Refusal, EdgebitError, MemoryError) as error:
            return error
        except Exception as error:
            log.exception("job %s failed by a fault of ours", job.address.id)
            return error
        return None

    def _remember(self, job: Job) -> None:
        """A complete answer: in its conversation, and for whoever asks the same."""
        answer = job.answer
        if job.known is None and job.answer_key is not None:
            self._scheduler.answers.keep(self._scheduler.owner(job), job.answer_key, answer)
        if job.conversation_key is not None and job.conversation is not None:
            tokens = answer.prompt_tokens + len(answer.tokens)
            job.conversation = job.conversation.answered(job.request, job.new_turn, answer.text, tokens)
            self._scheduler.conversations.keep(job.conversation_key, job.conversation)
