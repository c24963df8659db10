"""Ternary weights that are stored as floats: each is 0 or plus or minus the scale of its row, or of its part of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebit.ternary.bfloat16 import bfloat16_values
from edgebit.ternary.ggml.blocks import NO_CODE, Bytes
from edgebit.ternary.ternary_floats import GROUP_STEP, largest_magnitudes, misfits


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatLayout:
    """Floats read as ternary weights; see BlockLayout."""

    dtype: str
    is_bf16: bool = False
    block: int = 1

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row."""
        return columns * np.dtype(self.dtype).itemsize

    def values(self, rows: Bytes) -> NDArray[np.float32]:
        """[rows, row_bytes] -> the floats, [rows, columns]: exact."""
        stored = rows.view(self.dtype)
        if self.is_bf16:
            return bfloat16_values(stored)
        return stored.astype(np.float32)

    def scales(self, rows: Bytes) -> NDArray[np.float32]:
        """[rows, row_bytes] -> the largest magnitude of each part, [rows, parts]."""
        values = self.values(rows)
        scales: NDArray[np.float32] = largest_magnitudes(values, _part(values))
        return scales

    def codes(self, rows: Bytes) -> Bytes:
        """[rows, row_bytes] -> codes, [rows, columns]; NO_CODE where a value is neither 0 nor its part's scale."""
        values = self.values(rows)
        codes = np.sign(values).astype(np.int8) + np.int8(1)
        codes[misfits(values, _part(values))] = NO_CODE
        return codes.view(np.uint8)


def _part(values: NDArray[np.float32]) -> int:
    """Columns that may have a scale of their own."""
    columns: int = values.shape[1]
    return columns if columns % GROUP_STEP else GROUP_STEP


F32 = FloatLayout(dtype="<f4")
F16 = FloatLayout(dtype="<f2")
BF16 = FloatLayout(dtype="<u2", is_bf16=True)
