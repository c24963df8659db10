"""How a job ended: told once, by Endings, to whoever counts, charges or remembers."""

from dataclasses import dataclass
from typing import Protocol

from edgebit.daemon.sensors.energy import Energy


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One job from admission to its last frame; times in seconds."""

    principal: str
    job_id: str
    op: str
    status: int  # 200, or the status of the refusal that ended it
    code: str = ""  # of the refusal; empty for an answer
    prompt_tokens: int = 0
    reused_tokens: int = 0  # of these, computed before
    completion_tokens: int = 0
    cacheable: bool = False  # the answer cache is asked for such
    from_cache: bool = False  # the answer cache had the whole answer
    queued_s: float = 0.0
    first_token_s: float | None = None  # from admission to the first token; None: there was none
    prompt_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0
    energy: Energy


class OutcomeListener(Protocol):
    """Hears of every job's end, in whatever thread ends it, of several at once: be quick, and never raise."""

    def job_ended(self, outcome: Outcome) -> None:
        """Take note."""
