"""After a restart: what becomes of a job that was taken on and not finished."""

from edgebit.daemon.admission.journal_records import Asked, Entry
from edgebit.daemon.contract.messages import Address, Refusal

RESUMES_MAX = 3  # a job that was in flight at so many crashes may be their cause


def verdict(entry: Entry, left_s: float) -> Refusal | None:
    """Why a job is not run anew; None where nobody has seen anything of it, and somebody still waits."""
    if left_s <= 0:
        return Refusal(408, "expired", "the deadline passed while the device was away")
    if entry.frames_sent:
        return interrupted("the device was restarted in the middle of the answer")
    return too_often(entry)


def too_often(entry: Entry) -> Refusal | None:
    """Why a job is not taken up again, of whatever kind it is."""
    if entry.resumed < RESUMES_MAX:
        return None
    return interrupted(f"the device was restarted {entry.resumed + 1} times before the answer was ready")


def address_again(entry: Entry, asked: Asked | None, deadline: float) -> Address:
    """The address of a job as it was, as far as it is known; deadline: in monotonic seconds of now."""
    place, identity = entry.places[0], entry.identity
    return Address(
        principal=identity.principal,
        id=identity.id,
        id_given=identity.id_given,
        topic=place.topic,
        topic_given=asked is None or asked.topic_given,
        correlation=place.correlation,
        deadline=deadline,
        series=None if asked is None else asked.series,
    )


def interrupted(words: str) -> Refusal:
    """What a caller is told of a job that came to no end of its own."""
    return Refusal(500, "interrupted", words, retryable=True, retry_after_ms=1000)
