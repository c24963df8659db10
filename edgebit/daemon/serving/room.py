"""Whether there is a place for one more job, before anybody reckons when it would be answered."""

from edgebit.daemon.config.sections import LimitsConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.governor.levers import Levers

HOT_RETRY_MS = 30_000


def check_open(levers: Levers) -> None:
    """Raise Refusal, 503, where the governor lets nothing in."""
    if not levers.admit:
        words = f"the device takes no more work now: {levers.reason}".removesuffix(": ")
        raise Refusal(503, levers.closed_by or "hot", words, retryable=True, retry_after_ms=HOT_RETRY_MS)


def check_places(limits: LimitsConfig, sequences: int, theirs: int, in_flight: int, retry_ms: int) -> None:
    """Raise Refusal: 429 where the principal has all the places that are for it, 503 where all are taken.

    `theirs` are the principal's jobs among those `in_flight`; as many as the engine has `sequences` need not wait.
    """
    if theirs >= limits.queue_per_principal_max + sequences:
        words = f"{theirs} jobs of yours are in flight already"
        raise Refusal(429, "too_many_jobs", words, retryable=True, retry_after_ms=retry_ms)
    if (waiting := in_flight - sequences) >= limits.queue_max:
        words = f"{max(waiting, 0)} jobs are waiting already"
        raise Refusal(503, "queue_full", words, retryable=True, retry_after_ms=retry_ms)
