"""Ternary weights that are stored as floats: each value is -1, 0 or +1 times the scale of its row, or of its group.

The rule is exact: in a row, or in a group of columns of a row, all values that are not zero have one magnitude, bit for
bit. That magnitude is the scale; f16 and bf16 are exact in float32, so nothing is lost. All zeros have scale 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.errors import CheckpointError

GROUP_STEP = 64  # columns that share a scale are a multiple of this, or the whole row


def magnitude_bits(stored: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """The bits of floats without their signs (of bfloat16, stored as uint16, too): as equal as the magnitudes are."""
    bits: NDArray[np.unsignedinteger[Any]] = stored.view(f"<u{stored.dtype.itemsize}")
    return bits & bits.dtype.type(2 ** (8 * bits.dtype.itemsize - 1) - 1)


def find_group(rows: NDArray[Any], numbers: NDArray[np.int64], widest: int | None = None) -> int:
    """The most columns that share one magnitude in each of the given rows, [rows, columns]: all, or equal parts of all.

    rows: float32, or magnitude_bits()
    numbers: the rows' numbers in their tensor, for words
    widest: what was found in other rows; the result is that or a part of it
    Raises CheckpointError where the rows are not ternary.
    """
    columns: int = rows.shape[1]
    widest = smallest = widest or columns
    for group in (widest, *(widest // n for n in range(2, widest // GROUP_STEP + 1) if widest % n == 0)):
        if group != columns and group % GROUP_STEP:
            continue
        if not _mixed(rows, group).any():
            return group
        smallest = group
    row, part = (int(index[0]) for index in np.nonzero(_mixed(rows, smallest)))
    n_row = _n_magnitudes(rows[row])
    n_part = _n_magnitudes(rows[row, part * smallest : (part + 1) * smallest])
    raise CheckpointError(
        f"is not ternary: row {numbers[row]} holds {n_row} different magnitudes, {n_part} of them in the {smallest} "
        f"columns from {part * smallest}"
    )


def split_ternary(
    rows: NDArray[np.float32], group: int, first_row: int = 0
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes, [rows, columns], and scales, [rows, columns / group], of ternary rows from `first_row` of a tensor on.

    Raises CheckpointError naming the first place where `group` columns hold more than one magnitude.
    """
    mixed = _mixed(rows, group)
    if mixed.any():
        row, part = (int(index[0]) for index in np.nonzero(mixed))
        n = _n_magnitudes(rows[row, part * group : (part + 1) * group])
        raise CheckpointError(
            f"is not ternary: row {first_row + row} holds {n} different magnitudes in the {group} columns from "
            f"{part * group}, where other rows have one"
        )
    return np.sign(rows).astype(np.int8), largest_magnitudes(rows, group)


def largest_magnitudes(rows: NDArray[Any], group: int) -> NDArray[Any]:
    """Of each `group` columns of rows, [rows, columns]: [rows, columns / group]. Of ternary rows, the scales."""
    largest: NDArray[Any] = np.abs(rows).reshape(len(rows), -1, group).max(axis=2)
    return largest


def misfits(rows: NDArray[Any], group: int) -> NDArray[np.bool_]:
    """Where a value is neither 0 nor as large as the largest of its `group` columns, [rows, columns]."""
    parts = np.abs(rows).reshape(len(rows), -1, group)
    wrong: NDArray[np.bool_] = (parts != 0) & (parts != parts.max(axis=2, keepdims=True))
    return wrong.reshape(rows.shape)


def _mixed(rows: NDArray[Any], group: int) -> NDArray[np.bool_]:
    """Where a group of columns holds more than one magnitude, [rows, columns / group]."""
    mixed: NDArray[np.bool_] = np.logical_or.reduce(misfits(rows, group).reshape(len(rows), -1, group), axis=2)
    return mixed


def _n_magnitudes(values: NDArray[Any]) -> int:
    magnitudes = np.unique(np.abs(values))
    return int((magnitudes != 0).sum())
