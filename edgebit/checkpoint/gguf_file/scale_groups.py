"""The scales of ternary tensors: checked, and said as coarsely as can be without loss.

GGUF's block types store one scale a block where the model has one a tensor.
"""

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import GROUP_STEP, PER_ROW, PER_TENSOR, Granularity, Scaling
from edgebit.errors import CheckpointError
from edgebit.ternary.absmean import SMALLEST_MEAN


def check_scales(scales: NDArray[np.float32], first_row: int, where: str) -> None:
    """Raise CheckpointError naming the first of scales, [rows, groups], that is not finite or less than 0."""
    fine = np.isfinite(scales) & (scales >= 0)
    if not fine.all():
        row, group = (int(index[0]) for index in np.nonzero(~fine))
        place = f"row {first_row + row}, block {group}" if scales.size > 1 else "its end"
        raise CheckpointError(f"{where} has the scale {scales[row, group]} at {place}: none can be that")


def coarsest(scales: NDArray[np.float32], columns: int, where: str) -> tuple[Scaling, NDArray[np.float32]]:
    """The coarsest Scaling that says the same as scales, [rows, groups], and its scales in its order.

    A scale of 0 stands for weights that are all 0, for which any scale is right: it takes the value of its row or of
    another place. A tensor of zeros alone gets the scale that absmean would give it. Raises CheckpointError where
    groups are narrower than a model file can have them; `where` names file and tensor.
    """
    top = scales.max()
    if top == 0:
        return PER_TENSOR, np.array([SMALLEST_MEAN])
    if ((scales == top) | (scales == 0)).all():
        return PER_TENSOR, np.array([top])
    group, merged = _widest_groups(scales, columns, where)
    by_row = merged.max(axis=1, keepdims=True)
    filled = np.where(merged > 0, merged, np.where(by_row > 0, by_row, top))
    if group == columns:
        return PER_ROW, np.ascontiguousarray(filled[:, 0])
    return Scaling(Granularity.GROUP, group), np.ascontiguousarray(filled.T).reshape(-1)


def _widest_groups(scales: NDArray[np.float32], columns: int, where: str) -> tuple[int, NDArray[np.float32]]:
    """The most columns, equal parts of all, whose scales agree in every row, and these."""
    rows, n_groups = scales.shape
    for n_parts in range(1, n_groups + 1):
        if n_groups % n_parts or (n_parts > 1 and columns // n_parts % GROUP_STEP):
            continue
        parts = scales.reshape(rows, n_parts, -1)
        largest = parts.max(axis=2, keepdims=True)
        if ((parts == largest) | (parts == 0)).all():
            return columns // n_parts, largest[:, :, 0]
    raise CheckpointError(
        f"{where} has a scale of its own for {columns // n_groups} columns; multiples of {GROUP_STEP}, and equal parts "
        "of a row, are known"
    )
