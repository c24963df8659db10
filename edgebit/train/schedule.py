"""Learning rate and weight decay at each step, in two stages.

Source: "The Era of 1-bit LLMs: Training Tips, Code and FAQ" (Microsoft Research, 2024): a high learning rate with
weight decay in the first half of the training, then a lower one that falls to zero, without weight decay. There the
peak of the second stage is 2/3 of the first one's for most sizes.
"""

from dataclasses import dataclass

from edgebit.errors import TrainError


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Both as a function of the step. Raises TrainError where a share is not between 0 and 1."""

    steps: int
    learning_rate: float = 2e-3  # the highest
    weight_decay: float = 0.1  # in the first stage; none in the second
    warmup: int | None = None  # steps from 0 to the highest; None: a tenth of all, 100 at most
    second_stage: float = 0.5  # where it begins, as a share of the steps
    first_end: float = 2 / 3  # learning rate at the end of the first stage, as a share of the highest
    second_start: float = 2 / 3  # and at the begin of the second, which ends at 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 1:
            raise TrainError(f"{self.steps} steps: there must be 1 at least")
        if not self.learning_rate > 0 or self.weight_decay < 0 or (self.warmup or 0) < 0:
            raise TrainError("the learning rate must be more than 0, weight decay and warm-up no less than 0")
        for name in ("second_stage", "first_end", "second_start"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainError(f"{name} is {getattr(self, name)}, and must lie between 0 and 1")

    @property
    def first_steps(self) -> int:
        """Steps of the first stage."""
        return round(self.steps * self.second_stage)

    @property
    def warmup_steps(self) -> int:
        """Steps from 0 to the highest learning rate."""
        return min(self.steps // 10, 100) if self.warmup is None else self.warmup

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0: warm-up, then a straight fall in each stage."""
        first, second = self.first_steps, self.steps - self.first_steps
        if step < first:
            share = 1 - (1 - self.first_end) * step / first
        else:
            share = self.second_start * (1 - (step - first) / second)
        return self.learning_rate * min(share, (step + 1) / max(self.warmup_steps, 1))

    def weight_decay_at(self, step: int) -> float:
        """The weight decay of a step, counted from 0."""
        return self.weight_decay if step < self.first_steps else 0.0
