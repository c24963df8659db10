"""When jobs would be answered: the engine's pace, what runs and waits, and what heat allows for."""

from collections.abc import Collection, Sequence

from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.serving.job import Job
from edgebit.daemon.serving.work import NOTHING, Pace, Work, before_done

LEAST_RETRY_MS = 500
_UNKNOWN_S = 2.0  # until a place is free, where nothing was measured yet


class Estimates:
    """Not for several threads at once."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.levers = Levers()
        self.sequences = 0  # of the engine; 0: there is none yet

    def seconds(self, work: Work, answers: int) -> float | None:
        """How long the engine takes, with so many answers in the making if it can; None: not known."""
        if not self.sequences:
            return None
        answers = max(1, min(answers, self.sequences))
        return self.pace.seconds(work, answers, self.levers.sustainable_tok_s, self.levers.duty)

    def eta_s(self, job: Job, before: Sequence[Job], running: Sequence[Job], in_flight: int) -> float | None:
        """How long until a job is answered that runs, or whose turn comes after those; None: not known."""
        own = job.left()
        others = [each.left() for each in running if each is not job]
        work = before_done(own, sum((each.work for each in before), NOTHING), others)
        together = self.seconds(work, in_flight)
        alone = self.seconds(own, 1)
        return None if together is None or alone is None else max(together, alone)

    def surely_in_time(self, job: Job, taken: Work, now: float) -> bool:
        """Whether a new job is answered before its deadline even after all that was taken, one at a time."""
        seconds = self.seconds(taken + job.work, 1)
        return seconds is not None and seconds <= job.address.deadline - now

    def check_deadline(
        self, job: Job, before: Sequence[Job], running: Sequence[Job], in_flight: int, now: float
    ) -> None:
        """Raises Refusal where a new job would be late, if that is known."""
        eta_s = self.eta_s(job, before, running, in_flight)
        alone_s = self.seconds(job.work, 1)
        if eta_s is None or alone_s is None:
            return
        left_s = job.address.deadline - now
        if eta_s > left_s:
            raise _unmeetable(eta_s, left_s, eta_s - left_s if alone_s <= left_s else None)

    def retry_ms(self, running: Collection[Job]) -> int:
        """About when the first of the running jobs ends."""
        seconds = [self.seconds(job.left(), len(running)) or _UNKNOWN_S for job in running]
        return max(int(1000 * min(seconds, default=_UNKNOWN_S)), LEAST_RETRY_MS)


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
