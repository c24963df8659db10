"""The turns of a conversation, one after the other: each answer is said to what came before it."""

from edgebit.daemon.serving.conversations import ConversationKey
from edgebit.daemon.serving.job import Job


class TurnOrder:
    """Jobs of conversations, as they came. Not for several threads at once."""

    def __init__(self) -> None:
        self._jobs: dict[ConversationKey, list[Job]] = {}

    def enter(self, job: Job) -> None:
        """It has come."""
        if job.conversation_key is not None:
            self._jobs.setdefault(job.conversation_key, []).append(job)

    def leave(self, job: Job) -> None:
        """It has ended."""
        key = job.conversation_key
        if key is not None:
            self._jobs[key].remove(job)
            if not self._jobs[key]:
                del self._jobs[key]

    def is_next(self, job: Job) -> bool:
        """Whether nothing of its conversation has to be answered before."""
        return job.conversation_key is None or self._jobs[job.conversation_key][0] is job
