"""Rows as tensors, and the losses of a decoder on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgebit.train.decoder import Decoder
from edgebit.train.rows import IGNORED, Row


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows, each tensor [rows, tokens]; `learnt` [n] are the places of both axes flattened that bear loss."""

    ids: Tensor
    positions: Tensor
    documents: Tensor
    targets: Tensor
    learnt: Tensor

    @property
    def labels(self) -> Tensor:
        """The ids that are learnt, [n]."""
        return self.targets.flatten()[self.learnt]


def batch_of(rows: Sequence[Row], device: str = "cpu") -> Batch:
    """The rows, which are of one length, on a device."""
    lists = [[row.ids, row.positions, row.documents, row.targets] for row in rows]
    ids, positions, documents, targets = torch.tensor(lists, device=device).unbind(dim=1)
    learnt = (targets.flatten() != IGNORED).nonzero().squeeze(1)
    return Batch(ids.contiguous(), positions.contiguous(), documents.contiguous(), targets.contiguous(), learnt)


# Sum of the losses of a batch, of the hidden states [n, hidden] at its learnt places.
Objective = Callable[[Decoder, Tensor, Batch], Tensor]


def cross_entropy(decoder: Decoder, hidden: Tensor, batch: Batch) -> Tensor:
    """The objective of next-token prediction; logits are computed where there is a loss alone."""
    return F.cross_entropy(decoder.head(hidden), batch.labels, reduction="sum")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well held-out tokens are predicted."""

    loss: float  # nats a token
    accuracy: float  # share of tokens that are the most likely one
    tokens: int


@torch.no_grad()
def evaluate(decoder: Decoder, rows: Sequence[Row], *, rows_at_once: int = 32, device: str = "cpu") -> Evaluation:
    """Loss and accuracy at the learnt places of `rows`, without dropout."""
    decoder.eval()
    loss, right, tokens = 0.0, 0, 0
    for at in range(0, len(rows), rows_at_once):
        batch = batch_of(rows[at : at + rows_at_once], device)
        hidden = decoder.model(batch.ids, batch.positions, batch.documents).flatten(0, 1)[batch.learnt]
        logits = decoder.head(hidden)
        loss += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        right += int((logits.argmax(dim=-1) == batch.labels).sum())
        tokens += len(batch.learnt)
    return Evaluation(loss / max(tokens, 1), right / max(tokens, 1), tokens)
