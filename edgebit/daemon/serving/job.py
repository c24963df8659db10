"""One generation, from admission to its last frame, and the refusals that may end it."""

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgebit.daemon.assistant.assistant import Said
from edgebit.daemon.contract.frames import AnswerRecord, AnswerWriter
from edgebit.daemon.contract.messages import Address, GenerateRequest, Refusal
from edgebit.daemon.serving.answer_cache import KnownAnswer
from edgebit.daemon.serving.conversations import Conversation, ConversationKey, Turn
from edgebit.daemon.serving.work import NOTHING, Work
from edgebit.runtime.generation import Answer

JobKey = tuple[str, str]  # principal and id: ids are each principal's own

CANCELLED = Refusal(499, "cancelled", "cancelled by the caller")
SHUTTING_DOWN = Refusal(503, "shutting_down", "the device is shutting down", retryable=True, retry_after_ms=10_000)


class AnswerFilter(Protocol):
    """Looks at an answer on its way out."""

    def push(self, piece: str) -> str:
        """What may be shown now; never waits. Raises Refusal where the answer may not go on."""

    def finish(self) -> str:
        """What was held back. It may wait for a verdict. Raises Refusal."""

    def close(self) -> None:
        """The job has ended otherwise."""


@dataclass(eq=False, slots=True, kw_only=True)
class Job:
    """What was asked, and how far it has come; times in monotonic seconds."""

    address: Address
    request: GenerateRequest
    record: AnswerRecord | None = None  # told of every frame before it goes out
    filter: AnswerFilter | None = None
    ids: list[int] = field(default_factory=list)  # of the prompt; none before the model is there
    work: Work = NOTHING  # expected
    refusal: Refusal | None = None  # why it shall not go on
    writer: AnswerWriter | None = None
    answer: Answer = field(default_factory=lambda: Answer(prompt_tokens=0))
    text: str = ""  # of the answer, as far as it may be shown
    said: Said | None = None  # what an assistant's answer comes to
    unseen: list[str] = field(default_factory=list)  # drawn, and not yet sent
    answer_key: bytes | None = None  # all that determines the answer; None: chance does, or it shall be made anew
    known: KnownAnswer | None = None  # from the answer cache
    conversation: Conversation | None = None  # that the prompt goes on with
    new_turn: Turn = ()  # what is new in it
    had_turn: bool = False  # the queue gave it
    admitted: float = 0.0
    started: float | None = None
    first_token: float | None = None

    @property
    def key(self) -> JobKey:
        """Who asked, and the id."""
        return self.address.principal, self.address.id

    @property
    def conversation_key(self) -> ConversationKey | None:
        """The principal's own conversation that it belongs to."""
        return None if self.request.session is None else (self.address.principal, self.request.session)

    @property
    def cached(self) -> bool:
        """Whether nothing had to be computed."""
        return self.known is not None

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer so far."""
        return len(self.answer.tokens)

    def expired(self, now: float) -> Refusal | None:
        """The refusal of a job whose deadline has passed."""
        if now < self.address.deadline:
            return None
        return Refusal(
            408, "expired", f"the deadline passed while the job was {'running' if self.started else 'waiting'}"
        )

    def left(self) -> Work:
        """What is still to be computed."""
        computed = self.answer.reused_tokens if self.answer.prompt_ns == 0 else self.work.prompt
        return Work(max(self.work.prompt - computed, 0), max(self.work.answer - len(self.answer.tokens), 1))

    def computed_tokens(self) -> int:
        """What its principal is charged for; a prompt whose prefill was begun counts as a whole."""
        if self.started is None or self.cached:
            return 0
        return self.answer.prompt_tokens - self.answer.reused_tokens + len(self.answer.tokens)

    def figures(self) -> dict[str, Any]:
        """Tokens and times, times in nanoseconds under Ollama's names; queue_duration is ours.

        `eval_...` is what was computed for this answer, so nothing where it was known; `usage` is how long it is.
        """
        answer, now = self.answer, time.monotonic()
        completion = len(answer.tokens)
        began = self.started if self.started is not None else now
        return {
            **({"cached": True} if self.cached else {}),
            "usage": {
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": completion,
                "total_tokens": answer.prompt_tokens + completion,
            },
            "total_duration": int(1e9 * (now - self.admitted)),
            "load_duration": 0,
            "queue_duration": int(1e9 * (began - self.admitted)),
            "prompt_eval_count": answer.prompt_tokens,
            "prompt_eval_cached": answer.reused_tokens,
            "prompt_eval_duration": answer.prompt_ns,
            "eval_count": 0 if self.cached else completion,
            "eval_duration": answer.decode_ns,
            "draft_count": answer.drafted_tokens,
            "draft_accepted": answer.accepted_tokens,
            "seed": self.request.seed,
        }
