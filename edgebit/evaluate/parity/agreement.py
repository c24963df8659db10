"""How close is close enough: the criteria of tests/reference/README.md, for any model and any tokens.

Either two sides agree to float32 rounding, or one activation fell on the other side of a rounding to int8; then its row
carries the noise of the whole quantiser, and so do all after it that attend to it. How much that is, the reference says
itself: by how far its own output moves when the last bits of its input change.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLOSE = 1e-4  # of the row's largest value
NOISE_FACTOR = 4  # or so many times as far as the reference's own row moves
CLOSE_SHARE = 30 / 32  # of the rows that must be that close
FARTHEST = 0.05  # of the row's largest value, that no row may pass
LOGITS_DIFFERENCE = 0.03  # mean, in standard deviations of the reference's logits
SAME_ARGMAX = 0.95  # of the positions
LOSS_DIFFERENCE = 0.02  # of the mean next-token loss
LOSS_SHARE = 0.005  # or such a part of it, where a text surprises the model
SURE_GAP = 0.25  # a distance of best and second logit from which on greedy must take the same token


@dataclass(frozen=True, slots=True)
class RowAgreement:
    """How rows of ours and the reference's compare."""

    close_share: float  # of the rows that are close
    largest: float  # error of the worst row, as a share of the row's largest value
    median: float

    @property
    def holds(self) -> bool:
        return self.close_share >= CLOSE_SHARE and self.largest <= FARTHEST


def compare_rows(
    ours: NDArray[np.float32], wanted: NDArray[np.float32], noise: NDArray[np.float32] | None = None
) -> RowAgreement:
    """Compare [rows, features] row by row; what is not finite on our side is infinitely far.

    noise: how far each row of the reference moves by itself, as a share of its largest value
    """
    error = row_errors(ours, wanted)
    allowed = CLOSE if noise is None else np.maximum(CLOSE, NOISE_FACTOR * noise)
    return RowAgreement(float((error <= allowed).mean()), float(error.max()), float(np.median(error)))


def row_errors(ours: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest error of each row, as a share of the largest value of `wanted`'s row."""
    height = np.maximum(np.abs(wanted).max(axis=-1), np.finfo(np.float32).tiny)
    error = np.abs(ours - wanted).max(axis=-1) / height
    return np.where(np.isfinite(error), error, np.float32(np.inf))


@dataclass(frozen=True, slots=True)
class LogitsAgreement:
    """How the logits of all positions compare; the divergence is in nats, of ours from the reference's."""

    mean_difference: float  # in standard deviations of the reference's logits
    same_argmax: float  # share of the positions
    mean_divergence: float
    loss: float  # mean next-token loss over the ids
    reference_loss: float

    @property
    def holds(self) -> bool:
        return (
            self.mean_difference <= LOGITS_DIFFERENCE
            and self.same_argmax >= SAME_ARGMAX
            and abs(self.loss - self.reference_loss) <= max(LOSS_DIFFERENCE, LOSS_SHARE * self.reference_loss)
        )


def compare_logits(ours: NDArray[np.float32], wanted: NDArray[np.float32], ids: list[int]) -> LogitsAgreement:
    """Compare logits, [positions, vocabulary], of the tokens `ids`."""
    difference = float(np.abs(ours - wanted).mean() / max(float(wanted.std()), 1e-30))
    log_ours, log_wanted = _log_softmax(ours), _log_softmax(wanted)
    divergence = float((np.exp(log_wanted) * (log_wanted - log_ours)).sum(axis=1).mean())
    before, after = np.arange(len(ids) - 1), ids[1:]
    return LogitsAgreement(
        mean_difference=difference if np.isfinite(difference) else float("inf"),
        same_argmax=float((ours.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
        mean_divergence=divergence,
        loss=-float(log_ours[before, after].mean()),
        reference_loss=-float(log_wanted[before, after].mean()),
    )


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
