"""Absmean quantisation of weights and absmax quantisation of activations: the numpy reference.

Source: Ma et al. 2024, "The Era of 1-bit LLMs" (arXiv:2402.17764); rounding as transformers does it in float32.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgebit.errors import CheckpointError

SMALLEST_MEAN = np.float32(1e-5)  # transformers clamps mean|W| here, so that weights of zero get a scale
SMALLEST_ABSMAX = np.float32(1e-5)


def absmean_factor(chunks: Iterator[NDArray[np.float32]]) -> np.float32:
    """1 / mean|W| over all chunks of a weight tensor: what the weights are multiplied by before rounding.

    The mean is summed in float64 and rounded once. torch sums in float32 in an order that depends on its version, the
    CPU and the number of threads, so its mean is within a few units of the last place of this one; a code differs only
    where |W| * factor is that near to 0.5 (see borderline_codes). Raises CheckpointError on NaN or infinity.
    """
    total, count = 0.0, 0
    for chunk in chunks:
        part = float(np.abs(chunk).sum(dtype=np.float64))
        if not np.isfinite(part):
            row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(chunk)))
            raise CheckpointError(f"holds {chunk[row, column]} at row {count // chunk.shape[1] + row}, column {column}")
        total += part
        count += chunk.size
    return np.float32(1) / max(np.float32(total / max(count, 1)), SMALLEST_MEAN)


def ternary_codes(weights: NDArray[np.float32], factor: np.float32) -> NDArray[np.int8]:
    """Codes {-1, 0, +1} of float32 weights of any shape: rounded half to even in float32, as torch does."""
    codes: NDArray[np.int8] = np.clip(np.rint(weights * factor), -1, 1).astype(np.int8)
    return codes


def absmean(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], np.float32]:
    """Quantise float32 weights, [out, in], to int8 codes {-1, 0, +1} and one scale g, so that w is about codes * g.

    Raises CheckpointError where the weights hold NaN or infinity, naming the first place.
    """
    factor = absmean_factor(iter([weights]))
    return ternary_codes(weights, factor), np.float32(1) / factor


def borderline_codes(weights: NDArray[np.float32], factor: np.float32, ulps: int = 8) -> int:
    """How many codes would change if the factor were up to `ulps` units of the last place larger or smaller."""
    step = np.spacing(factor) * np.float32(ulps)
    return int((ternary_codes(weights, factor - step) != ternary_codes(weights, factor + step)).sum())


def absmax_int8(x: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise activations, [tokens, features], to int8 and one factor a token, so that x is about codes / factor."""
    factor = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), SMALLEST_ABSMAX)
    return np.clip(np.rint(x * factor), -128, 127).astype(np.int8), factor


def row_int8(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise float32 rows, [rows, columns], to int8 codes -127 .. 127 and one scale a row: w is about code * scale.

    A row whose largest value is too small for a normal float32 scale becomes zeros.
    """
    smallest = np.finfo(np.float32).tiny
    scale = np.maximum(np.abs(rows).max(axis=1) / np.float32(127), smallest)
    codes = np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8)
    return codes, scale.astype(np.float32)
