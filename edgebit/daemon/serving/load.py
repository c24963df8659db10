"""What a scheduler says of its work: in all, and of one job."""

from dataclasses import dataclass
from typing import Literal


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
