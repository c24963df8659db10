"""Ternary weights multiplied out: code x scale, as floats."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Granularity, Scaling
from edgebit.checkpoint.checkpoint import CHUNK_BYTES, Projection


def dense_chunks(projection: Projection, scaling: Scaling) -> Iterator[NDArray[np.float32]]:
    """The weights, some rows at a time: exact, for a code is -1, 0 or 1."""
    rows, columns = projection.weights.shape
    shared = scaling.group or columns
    scales = block_scales(projection.scales, scaling, rows, columns, shared)
    for first, n in row_steps(rows, columns):
        codes = projection.weights[first : first + n].reshape(n, -1, shared)
        yield (codes * scales[first : first + n, :, None]).reshape(n, columns)


def block_scales(scales: NDArray[Any], scaling: Scaling, rows: int, columns: int, block: int) -> NDArray[Any]:
    """The scale of every `block` columns, [rows, columns / block], as a view where all are the same."""
    match scaling.granularity:
        case Granularity.TENSOR:
            return np.broadcast_to(scales, (rows, columns // block))
        case Granularity.ROW:
            return np.broadcast_to(scales[:, None], (rows, columns // block))
    return np.repeat(scales.reshape(-1, rows).T, scaling.group // block, axis=1)


def row_steps(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of chunks of about CHUNK_BYTES weights."""
    step = max(1, CHUNK_BYTES // columns)
    for first in range(0, rows, step):
        yield first, min(step, rows - first)
