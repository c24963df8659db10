"""What is known of each step of a training, and who follows it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A step, counted from 1: a line of loss.jsonl."""

    step: int
    loss: float  # nats a token, before the step
    learning_rate: float
    tokens: int  # learnt since the begin
    held_out_loss: float | None = None  # after the step
    held_out_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """Who follows a training."""

    compiling: Callable[[], None] = lambda: None  # which takes up to a minute
    began: Callable[[int, int], None] = lambda done, steps: None  # with the first step after these, of so many
    stepped: Callable[[Record], None] = lambda record: None
    saved: Callable[[Sequence[Record]], None] = lambda records: None  # with all steps so far
    noted: Callable[[str], None] = lambda words: None  # what went another way than asked for
    should_stop: Callable[[], bool] = lambda: False  # asked after each step
