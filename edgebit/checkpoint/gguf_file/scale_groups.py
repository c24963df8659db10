"""The scales of ternary tensors: checked, and said as coarsely as can be without loss.

GGUF's block types store one scale a block where the model has one a tensor.
"""

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import PER_ROW, PER_TENSOR, Scales, Scaling
from edgebit.errors import CheckpointError
from edgebit.ternary.absmean import SMALLEST_MEAN


def check_scales(scales: NDArray[np.float32], first_row: int, where: str) -> None:
    """Raise CheckpointError naming the first of scales, [rows, groups], that is not finite or less than 0."""
    fine = np.isfinite(scales) & (scales >= 0)
    if not fine.all():
        row, group = (int(index[0]) for index in np.nonzero(~fine))
        place = f"row {first_row + row}, block {group}" if scales.size > 1 else "its end"
        raise CheckpointError(f"{where} has the scale {scales[row, group]} at {place}: none can be that")


def coarsest(scales: NDArray[np.float32], group: int) -> tuple[Scaling, NDArray[np.float32]]:
    """The coarsest Scaling that says the same as scales, [rows, groups], and its scales in its order.

    A scale of 0 stands for weights that are all 0, for which any scale is right: it takes the value of its row or of
    another place. A tensor of zeros alone gets the scale that absmean would give it.
    """
    largest = scales.max(axis=1)
    smallest = np.where(scales > 0, scales, np.float32(np.inf)).min(axis=1)
    top = largest.max()
    if top == 0:
        return PER_TENSOR, np.array([SMALLEST_MEAN])
    if smallest.min() == top:
        return PER_TENSOR, np.array([top])
    by_row = np.where(largest > 0, largest, top)
    if (np.minimum(smallest, by_row) == by_row).all():
        return PER_ROW, by_row
    filled = np.where(scales > 0, scales, by_row[:, None])
    return Scaling(Scales.GROUP, group), np.ascontiguousarray(filled.T).reshape(-1)
