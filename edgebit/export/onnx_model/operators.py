"""What a decoder asks of a set of operators: the parts that each runtime has in another form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Conf
from edgebit.errors import ExportError
from edgebit.export.onnx_model.graph import Graph

_TABLES_MAX = 1 << 30  # bytes
_POSITIONS = 4096  # whose angles are in memory at once


@dataclass(frozen=True, slots=True)
class RopeTables:
    """Cosines and sines of every position, with the model's own frequencies and attention factor."""

    cos: NDArray[np.float32]  # [positions, head_dim / 2]
    sin: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerAttention:
    """What the attention of a layer computes from, and where it puts its cache: names of values."""

    name: str  # the prefix of its nodes' names
    projected: tuple[str, ...]  # q, k, v, each [B, S, heads x head_dim]; or one [B, S, all of the three]
    past_key: str  # [B, kv heads, P, head_dim]
    past_value: str
    present_key: str  # the graph's outputs, which it must give: [B, kv heads, P + S, head_dim]
    present_value: str


def projected_apart(graph: Graph, conf: Conf, layer: LayerAttention) -> list[str]:
    """q, k and v, each [B, S, heads x head_dim], where they come as one value too."""
    if len(layer.projected) > 1:
        return list(layer.projected)
    sizes = [heads * conf.head_dim for heads in (conf.n_heads, conf.n_kv_heads, conf.n_kv_heads)]
    return graph.split(layer.projected[0], sizes, f"{layer.name}.qkv")


class Operators(Protocol):
    """A set of operators at work on one graph, which has the inputs `input_ids` and `attention_mask`."""

    tokens: str  # int64 [B, S]: input_ids in the order that attention takes them in

    def rms_norm(self, x: str, weight: str, features: int, eps: float, name: str) -> str:
        """x / sqrt(mean(x^2) + eps) * weight over the last axis, which has `features` elements."""
        ...

    def attention(self, layer: LayerAttention) -> str:
        """Rotates queries and keys, appends to the cache, attends: [B, S, heads x head_dim]."""
        ...

    def wanted(self, hidden: str, *, last: bool) -> str:
        """Of hidden states in the order of `tokens`, [B, S, hidden], those whose logits are given.

        last: [B, 1, hidden] of the last token that attention_mask has; else all, [B, S, hidden], as input_ids has them
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Flavour:
    """A set of operators, and what a runtime must know of."""

    name: str
    opsets: Mapping[str, int]  # version of each domain
    ir_version: int
    start: Callable[[Graph, Conf, RopeTables], Operators]


def rope_tables(conf: Conf, inv_freq: NDArray[np.float32]) -> RopeTables:
    """As the engine computes them: the angle in float32, its cosine and sine in double, rounded, times the factor.

    Raises ExportError where they would take more than a GiB.
    """
    n_bytes = 8 * conf.context_max * inv_freq.size
    if n_bytes > _TABLES_MAX:
        raise ExportError(
            f"cosines and sines of {conf.context_max} positions take {n_bytes / (1 << 30):.1f} GiB: "
            f"say how long sequences are, up to --ctx {_TABLES_MAX // (8 * inv_freq.size)}"
        )
    factor = np.float32(conf.rope_attention_factor)
    cos, sin = (np.empty((conf.context_max, inv_freq.size), np.float32) for _ in range(2))
    for first in range(0, conf.context_max, _POSITIONS):
        positions = np.arange(first, min(first + _POSITIONS, conf.context_max), dtype=np.float32)
        angles = (positions[:, None] * inv_freq.astype(np.float32)).astype(np.float64)
        cos[first : first + _POSITIONS] = np.cos(angles).astype(np.float32) * factor
        sin[first : first + _POSITIONS] = np.sin(angles).astype(np.float32) * factor
    return RopeTables(cos, sin)
