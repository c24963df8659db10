"""The tensors of a GGUF: how each is kept, and its bytes, chunk by chunk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Conf, Granularity, Role, Scaling
from edgebit.checkpoint.checkpoint import Projection
from edgebit.errors import ExportError
from edgebit.export.dense_weights import block_scales, dense_chunks, row_steps
from edgebit.ternary.ggml.packing import pack_i2_s, pack_q4_0, pack_tq1_0, pack_tq2_0


class GgmlType(IntEnum):
    """ggml's ids; I2_S is bitnet.cpp's and ik_llama.cpp's."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    I2_S = 36


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A type whose rows are blocks with an f16 scale each."""

    weights: int
    size: int  # bytes
    pack: Callable[[NDArray[np.int8], NDArray[np.float16]], NDArray[np.uint8]]


_BLOCKS = {
    GgmlType.TQ1_0: _Blocks(256, 54, pack_tq1_0),
    GgmlType.TQ2_0: _Blocks(256, 66, pack_tq2_0),
    GgmlType.Q4_0: _Blocks(32, 18, pack_q4_0),
}
_I2_S_BLOCK, _I2_S_TAIL = 128, 32  # weights; bytes for the tensor's scale, behind its codes
FLOAT_TYPES = {np.dtype("<f4"): GgmlType.F32, np.dtype("<f2"): GgmlType.F16, np.dtype("<u2"): GgmlType.BF16}


def choose_type(wanted: GgmlType, name: str, columns: int, scaling: Scaling) -> GgmlType:
    """The type that keeps a projection: `wanted` or, where its blocks do not fit, Q4_0 or F16 as llama.cpp takes them.

    All of them hold ternary codes exactly. Raises ExportError where I2_S cannot hold the tensor.
    """
    if wanted == GgmlType.I2_S:
        if scaling.granularity == Granularity.TENSOR and columns % _I2_S_BLOCK == 0:
            return wanted
        other = choose_type(GgmlType.TQ2_0, name, columns, scaling).name.lower()
        raise ExportError(
            f"{name}: i2_s has one scale a tensor and rows of a multiple of {_I2_S_BLOCK} weights; this tensor has one "
            f"a {scaling.granularity.name.lower()} and rows of {columns}. Take --type tq2_0, which keeps it as {other}"
        )
    shared = scaling.group or columns  # a block must lie within what shares a scale
    for candidate in (wanted, GgmlType.Q4_0):
        if columns % _BLOCKS[candidate].weights == 0 and shared % _BLOCKS[candidate].weights == 0:
            return candidate
    return GgmlType.F16


def tensor_size(kind: GgmlType, rows: int, columns: int) -> int:
    """Bytes of a tensor."""
    if kind == GgmlType.I2_S:
        return rows * columns // 4 + _I2_S_TAIL
    if kind in _BLOCKS:
        return rows * (columns // _BLOCKS[kind].weights) * _BLOCKS[kind].size
    return rows * columns * (4 if kind == GgmlType.F32 else 2)


@dataclass(slots=True)
class ScaleLoss:
    """What rounding scales to f16 costs; filled as tensors are written."""

    exact: int = 0
    rounded: int = 0
    largest: float = 0.0  # relative
    worst: str = ""  # the tensor with the largest
    _seen: set[str] = field(default_factory=set)

    def add(self, name: str, scales: NDArray[np.float32], halves: NDArray[np.float16]) -> None:
        """Count the scales of a tensor. Raises ExportError where one leaves f16's range."""
        kept = halves.astype(np.float32)
        if not np.isfinite(kept).all() or ((kept == 0) != (scales == 0)).any():
            raise ExportError(
                f"{name}: a scale of {scales[~np.isfinite(kept) | (kept == 0)][0]} is outside f16's range. "
                "Take --exact-scales or --type i2_s"
            )
        differs = kept != scales
        self.rounded += int(differs.sum())
        self.exact += int((~differs).sum())
        if differs.any():
            largest = float((np.abs(kept - scales)[differs] / np.abs(scales)[differs]).max())
            if largest > self.largest:
                self.largest, self.worst = largest, name


def packed_chunks(
    name: str, kind: GgmlType, projection: Projection, scaling: Scaling, loss: ScaleLoss | None
) -> Iterator[NDArray[Any]]:
    """The bytes of a projection in chunks of rows. Without `loss` blocks have scale 1, and theirs is kept apart."""
    weights, scales = projection.weights, projection.scales
    rows, columns = weights.shape
    if kind == GgmlType.I2_S:
        for first, n in row_steps(rows, columns):
            yield pack_i2_s(weights[first : first + n])
        yield np.concatenate([scales.astype("<f4"), np.zeros(_I2_S_TAIL // 4 - 1, "<f4")])
        return
    halves = np.ones(len(scales), np.float16) if loss is None else _halves(name, scales, loss)
    if kind not in _BLOCKS:
        rounded = Projection(weights, halves.astype(np.float32))
        yield from (part.astype(np.float16) for part in dense_chunks(rounded, scaling))
        return
    d = block_scales(halves, scaling, rows, columns, _BLOCKS[kind].weights)
    for first, n in row_steps(rows, columns):
        yield _BLOCKS[kind].pack(weights[first : first + n], np.ascontiguousarray(d[first : first + n]))


def _halves(name: str, scales: NDArray[np.float32], loss: ScaleLoss) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    loss.add(name, scales, halves)
    return halves


def interleave_halves(projection: Projection, conf: Conf, role: Role, scaling: Scaling) -> Projection:
    """q or k with each head's rows as arch llama has them: the first of both halves, then the second of both ..."""
    heads = conf.n_heads if role == Role.Q_PROJ else conf.n_kv_heads
    rows = heads * conf.head_dim
    order = np.arange(rows).reshape(heads, 2, conf.head_dim // 2).swapaxes(1, 2).reshape(-1)
    scales = projection.scales
    if scaling.granularity == Granularity.ROW:
        scales = scales[order]
    elif scaling.granularity == Granularity.GROUP:
        scales = scales.reshape(-1, rows)[:, order].reshape(-1)
    return Projection(projection.weights[order], scales)
