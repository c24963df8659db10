"""Codes, scales, norms, embedding and head of two models, compared in bounded memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Conf, Role, Scaling
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.progress import Progress
from edgebit.ternary.absmean import row_int8

Chunk = tuple[NDArray[Any], ...]  # of some rows, an array for each thing that is told of them
SAME_SCALE = 1e-6  # relative: what a scale may lose where rows of int8 are made values and int8 again


def tensor_name(role: Role, layer: int) -> str:
    """As a model file's tensors are called."""
    return role.name.lower() + (f"[{layer}]" if role.per_layer else "")


def tensor_difference(a: Checkpoint, b: Checkpoint, role: Role, layer: int, *, as_int8: bool = False) -> str | None:
    """Words for how that tensor of `a` and `b` differs; None where it does not.

    The head is compared as int8 rows with a scale each, which is all that a model file keeps of it; as_int8: so is the
    embedding.
    """
    shapes = a.config.conf.shape_of(role), b.config.conf.shape_of(role)
    if shapes[0] != shapes[1]:
        return f"{_shape(shapes[0])} and {_shape(shapes[1])}"
    if role.is_projection:
        return _projection_difference(a, b, role, layer)
    if role == Role.HEAD or as_int8:
        return _int8_difference(a, b, role)
    if role == Role.TOKEN_EMBEDDING:
        return _exact_difference(a, b, role)
    if role == Role.ROPE_INV_FREQ:
        return _vector_difference(a.config.rope_inv_freq, b.config.rope_inv_freq)
    return _vector_difference(a.vector(role, layer), b.vector(role, layer))


def shared_tensors(a: Conf, b: Conf) -> list[tuple[Role, int]]:
    """Roles and layers that both have, in the order of `a`."""
    others = set(b.roles())
    return [each for each in a.roles() if each in others]


def tensor_differences(a: Checkpoint, b: Checkpoint, progress: Progress) -> Iterator[tuple[str, str]]:
    """(name, how it differs) of every tensor that both have and that is not the same."""
    tensors = shared_tensors(a.config.conf, b.config.conf)
    for done, (role, layer) in enumerate(tensors):
        name = tensor_name(role, layer)
        progress(name, done, len(tensors))
        difference = tensor_difference(a, b, role, layer)
        if difference is not None:
            yield name, difference
    progress("", len(tensors), len(tensors))


def _projection_difference(a: Checkpoint, b: Checkpoint, role: Role, layer: int) -> str | None:
    first, second = a.projection(role, layer), b.projection(role, layer)
    found = []
    different = first.weights != second.weights
    count = int(np.count_nonzero(different))
    if count:
        row, column = np.unravel_index(int(np.argmax(different)), different.shape)
        found.append(
            f"{count:,} of {different.size:,} codes differ, first at row {row}, column {column}: "
            f"{first.weights[row, column]:+d} and {second.weights[row, column]:+d}"
        )
    scalings = a.scaling(role, layer), b.scaling(role, layer)
    if scalings[0] != scalings[1]:
        found.append(f"a scale {_scaling_text(scalings[0])} and {_scaling_text(scalings[1])}")
    elif (text := _vector_difference(first.scales, second.scales)) is not None:
        found.append(f"scales: {text}")
    return "; ".join(found) or None


def _int8_difference(a: Checkpoint, b: Checkpoint, role: Role) -> str | None:
    count = first_row = 0
    worst = 0.0
    for row, (codes, scales), (other_codes, other_scales) in paired(rows_as_int8(a, role), rows_as_int8(b, role)):
        apart = _relative(scales, other_scales)
        wrong = (codes != other_codes).any(axis=1) | (apart > SAME_SCALE)
        if wrong.any():
            first_row = first_row if count else row + int(np.argmax(wrong))
            count += int(np.count_nonzero(wrong))
            worst = max(worst, float(apart.max()))
    if not count:
        return None
    return f"{count:,} rows differ as int8, first row {first_row}; largest relative difference of scales {worst:.2e}"


def rows_as_int8(checkpoint: Checkpoint, role: Role) -> Iterator[Chunk]:
    """(codes, scales) of the rows of embedding or head, in chunks, as a model file keeps them."""
    return (row_int8(values) for _, values in checkpoint.rows(role))


def _exact_difference(a: Checkpoint, b: Checkpoint, role: Role) -> str | None:
    count = first_row = 0
    worst = 0.0
    for row, (one,), (other,) in paired(_values(a, role), _values(b, role)):
        wrong = (one != other).any(axis=1)
        if wrong.any():
            first_row = first_row if count else row + int(np.argmax(wrong))
            count += int(np.count_nonzero(wrong))
            worst = max(worst, float(np.abs(one[wrong] - other[wrong]).max()))
    if not count:
        return None
    return f"{count:,} rows differ, first row {first_row}; largest difference of a value {worst:.3g}"


def _values(checkpoint: Checkpoint, role: Role) -> Iterator[Chunk]:
    return ((values,) for _, values in checkpoint.rows(role))


def paired(one: Iterator[Chunk], other: Iterator[Chunk]) -> Iterator[tuple[int, Chunk, Chunk]]:
    """(first row, rows of one, the same rows of the other), though they come in chunks of other sizes.

    Ends with the shorter of the two.
    """
    row = 0
    left, right = next(one, None), next(other, None)
    while left is not None and right is not None:
        n = min(len(left[0]), len(right[0]))
        yield row, tuple(part[:n] for part in left), tuple(part[:n] for part in right)
        row += n
        left = tuple(part[n:] for part in left) if len(left[0]) > n else next(one, None)
        right = tuple(part[n:] for part in right) if len(right[0]) > n else next(other, None)


def _vector_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> str | None:
    if one.shape != other.shape:
        return f"{one.size} and {other.size} values"
    wrong = one != other
    if not wrong.any():
        return None
    first = int(np.argmax(wrong))
    return (
        f"{int(np.count_nonzero(wrong)):,} of {one.size:,} differ, first number {first}: {one[first]:.8g} and "
        f"{other[first]:.8g}; largest relative difference {float(_relative(one, other).max()):.2e}"
    )


def _relative(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    larger = np.maximum(np.abs(one), np.abs(other))
    apart: NDArray[np.float32] = np.divide(np.abs(one - other), larger, out=np.zeros_like(larger), where=larger > 0)
    return apart


def _shape(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _scaling_text(scaling: Scaling) -> str:
    columns = f" of {scaling.group} columns" if scaling.group else ""
    return f"a {scaling.granularity.name.lower()}{columns}"
