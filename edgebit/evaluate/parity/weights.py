"""How a model file's tensors differ from the checkpoint's, in words."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import NO_LAYER, Role
from edgebit.checkpoint.checkpoint import Checkpoint


def describe_difference(file: Checkpoint, source: Checkpoint, role: Role, layer: int = NO_LAYER) -> str | None:
    """How a tensor of the model file differs from the checkpoint's; None where it does not."""
    if role.is_projection:
        return _projection_difference(file, source, role, layer)
    if role in (Role.TOKEN_EMBEDDING, Role.HEAD):
        return _rows_difference(file, source, role)
    ours, wanted = file.vector(role, layer), source.vector(role, layer)
    different = np.nonzero(ours != wanted)[0]
    if not different.size:
        return None
    for other, of_layer in source.config.conf.roles():
        is_vector = source.config.conf.shape_of(other)[0] == 1 and other != Role.ROPE_INV_FREQ
        if is_vector and of_layer == layer and other != role and np.array_equal(ours, source.vector(other, layer)):
            return f"it holds the checkpoint's {other.name.lower()}"
    at = int(different[0])
    return f"{different.size} of {ours.size} values differ, first at {at}: {ours[at]:.6g} for {wanted[at]:.6g}"


def describe_rope(file: Checkpoint, source: Checkpoint) -> str | None:
    """How the frequencies of RoPE differ; None where they do not."""
    ours, wanted = file.config.rope_inv_freq, source.config.rope_inv_freq
    if np.array_equal(ours, wanted):
        return None
    at = int(np.nonzero(ours != wanted)[0][0])
    return f"frequency {at} of RoPE is {ours[at]:.6g}; the checkpoint asks for {wanted[at]:.6g}"


def _projection_difference(file: Checkpoint, source: Checkpoint, role: Role, layer: int) -> str | None:
    ours, wanted = file.projection(role, layer), source.projection(role, layer)
    said: list[str] = []
    if ours.weights.shape != wanted.weights.shape:
        return f"its shape is {ours.weights.shape}; the checkpoint's is {wanted.weights.shape}"
    different = ours.weights != wanted.weights
    if different.any():
        rows = np.nonzero(different.any(axis=1))[0]
        column = int(np.nonzero(different[rows[0]])[0][0])
        said.append(
            f"{int(different.sum())} of {different.size} codes differ, in {rows.size} rows, first in row {rows[0]}, "
            f"column {column}"
        )
        if _sorted_rows(ours.weights) == _sorted_rows(wanted.weights):
            said.append("the rows are the same in another order")
    if ours.scales.shape != wanted.scales.shape:
        said.append(f"it has {ours.scales.size} scales; the checkpoint {wanted.scales.size}")
    elif not np.array_equal(ours.scales, wanted.scales):
        at = int(np.nonzero(ours.scales != wanted.scales)[0][0])
        which = "its scale" if ours.scales.size == 1 else f"its scale {at}"
        said.append(f"{which} is {ours.scales[at]:.6g}; the checkpoint's {wanted.scales[at]:.6g}")
    return "; ".join(said) or None


def _sorted_rows(weights: NDArray[np.int8]) -> list[bytes]:
    return sorted(row.tobytes() for row in weights)


def _rows_difference(file: Checkpoint, source: Checkpoint, role: Role) -> str | None:
    """Of the embedding or the head: int8 rows may be half a step of their scale away."""
    for row, (ours, wanted) in enumerate(zip(_by_row(file, role), _by_row(source, role), strict=True)):
        largest, error = float(np.abs(wanted).max()), float(np.abs(ours - wanted).max())
        if not error <= largest / 127 * 0.51:
            return f"row {row} is {error:.3g} away from the checkpoint's, whose largest value is {largest:.3g}"
    return None


def _by_row(checkpoint: Checkpoint, role: Role) -> Iterator[NDArray[np.float32]]:
    for _, values in checkpoint.rows(role):
        yield from values
