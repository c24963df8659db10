"""Ternary weights that are stored as floats: each is 0 or plus or minus the scale of its row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebit.ternary.ggml.blocks import NO_CODE, Bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatLayout:
    """Floats read as ternary weights; see BlockLayout."""

    dtype: str
    is_bf16: bool = False
    block: int = 1
    group: int = 0

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row."""
        return columns * np.dtype(self.dtype).itemsize

    def values(self, rows: Bytes) -> NDArray[np.float32]:
        """[rows, row_bytes] -> the floats, [rows, columns]: exact."""
        stored = rows.view(self.dtype)
        if self.is_bf16:
            wide: NDArray[np.float32] = (stored.astype(np.uint32) << 16).view(np.float32)
            return wide
        return stored.astype(np.float32)

    def scales(self, rows: Bytes) -> NDArray[np.float32]:
        """[rows, row_bytes] -> the largest value of each row, [rows, 1]."""
        largest: NDArray[np.float32] = np.abs(self.values(rows)).max(axis=1, keepdims=True)
        return largest

    def codes(self, rows: Bytes) -> Bytes:
        """[rows, row_bytes] -> codes, [rows, columns]; NO_CODE where a value is neither 0 nor its row's scale."""
        values = self.values(rows)
        signs = np.sign(values)
        is_ternary = np.abs(values) == np.abs(signs) * self.scales(rows)
        return np.where(is_ternary, signs + 1, np.float32(NO_CODE)).astype(np.uint8)


F32 = FloatLayout(dtype="<f4")
F16 = FloatLayout(dtype="<f2")
BF16 = FloatLayout(dtype="<u2", is_bf16=True)
