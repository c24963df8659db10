"""Floats as files keep them: bfloat16 is not one of numpy's types, and stands as its bits, uint16."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.ternary.bfloat16 import bfloat16_values

FloatType = Literal["bfloat16", "float16", "float32"]


def to_float_type(values: NDArray[np.float32], kind: FloatType) -> NDArray[Any]:
    """Rounded half to even, little-endian."""
    if kind == "float32":
        return values.astype("<f4")
    if kind == "float16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype("<u2")


def from_float_type(stored: NDArray[Any], kind: FloatType) -> NDArray[np.float32]:
    """What to_float_type() gave, as float32."""
    return bfloat16_values(stored) if kind == "bfloat16" else stored.astype(np.float32)


def rounded(values: NDArray[np.float32], kind: FloatType) -> NDArray[np.float32]:
    return from_float_type(to_float_type(values, kind), kind)


def fits(values: NDArray[np.float32], kind: FloatType) -> bool:
    """Whether each value is one of the type's."""
    return np.array_equal(rounded(values, kind), values)
