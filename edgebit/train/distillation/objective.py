"""The objective that makes a student say what its teacher says.

Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network" (arXiv:1503.02531): Kullback-Leibler
divergence of softened predictions, times the square of the temperature, mixed with the cross entropy of the text.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgebit.errors import TrainError
from edgebit.train.batch import Batch
from edgebit.train.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Distillation:
    """An Objective: `share` of the loss is the divergence from the teacher, the rest the text's own."""

    teacher: Decoder
    temperature: float = 2.0
    share: float = 0.9

    def __post_init__(self) -> None:
        """Raise TrainError where temperature or share cannot be."""
        if not self.temperature > 0:
            raise TrainError(f"a temperature of {self.temperature:g}: it must be more than 0")
        if not 0 <= self.share <= 1:
            raise TrainError(f"the teacher's share of the loss is {self.share:g}, and must lie between 0 and 1")

    def __call__(self, student: Decoder, hidden: Tensor, batch: Batch) -> Tensor:
        """The sum of the losses at the places of the batch that are learnt."""
        logits = student.head(hidden)
        own = F.cross_entropy(logits, batch.labels, reduction="sum")
        wanted = self._teacher_logits(batch)
        divergence = F.kl_div(
            (logits / self.temperature).log_softmax(dim=-1), (wanted / self.temperature).log_softmax(dim=-1),
            reduction="sum", log_target=True,
        )  # fmt: skip
        return self.share * self.temperature**2 * divergence + (1 - self.share) * own

    @torch.no_grad()
    def _teacher_logits(self, batch: Batch) -> Tensor:
        hidden = self.teacher.model(batch.ids, batch.positions, batch.documents)
        return self.teacher.head(hidden.flatten(0, 1)[batch.learnt])
