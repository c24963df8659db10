"""The ways that ONNX Runtime can compute ternary projections: with our operator, and with what it has itself.

Each way writes the same product into a graph. They differ in what they round, and so in how far they are from BitNet's
own arithmetic, bitnet().
"""

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Conf
from edgebit.export.onnx_model.fallback import add_fallback
from edgebit.export.onnx_model.graph import ElementType, Graph
from edgebit.export.onnx_model.projections import Int8Matrix, OwnProducts, Products, Stack
from edgebit.onnx_engine.folder import DOMAIN, DOMAIN_VERSION, MICROSOFT

_ABSMAX_LEAST = np.float32(1e-5)
_ACCURACY = 4  # of MatMulNBits: int8 products
_N_BITS = [(bits, size) for bits in (2, 4, 8) for size in (32, 64, 128)]  # blocks that its int8 kernels take
_HEAD_BLOCKS = (128, 64, 32, 16)

Write = Callable[[Graph, str, Stack, str], str]  # graph, name of X, weights, name for the nodes; gives the name of Y


@dataclass(frozen=True, slots=True)
class Way:
    """One of them: with our operator, a fallback of it (`body`), or operators of ONNX Runtime's own (`write`)."""

    key: str  # short, for command lines
    name: str
    body: Literal["kernel", "compact", "exact"] | None = None
    write: Write | None = None


def bitnet(x: NDArray[np.float32], weights: NDArray[np.int8], scale: float) -> NDArray[np.float64]:
    """What BitNet defines, [M, N] of x [M, K] and weights [N, K]: activations absmax-quantised to int8 a token."""
    largest = np.maximum(np.abs(x).max(axis=1, keepdims=True), _ABSMAX_LEAST)
    rounded = np.clip(np.rint(x * (np.float32(127) / largest)), -128, 127).astype(np.float32)
    # Exact: every partial sum is an integer of at most 128 K, below 2^24 for K up to 131,072.
    dots = (rounded @ weights.T.astype(np.float32)).astype(np.float64)
    return dots * (largest.astype(np.float64) / 127 * scale)


def products_of(way: Way, graph: Graph, conf: Conf) -> Products:
    """What writes a way's products into a graph."""
    if way.write is not None:
        return PeerProducts(graph, way.write)
    return OwnProducts(graph, conf, with_block_scales=way.body != "exact")


def finish(way: Way, graph: Graph, opsets: Mapping[str, int], *, bits: int = 8) -> dict[str, int]:
    """Put the fallback into the graph where it is one of ours; gives the versions of all operators' domains."""
    needed = {**opsets, MICROSOFT: 1}
    if way.body is not None:
        needed[DOMAIN] = DOMAIN_VERSION
        add_fallback(graph, "exact" if way.body == "exact" else "compact", bits=bits, grouped=False, opsets=needed)
    return needed


class PeerProducts:
    """Products (edgebit.export.onnx_model.projections) in ONNX Runtime's own operators; the head always in 8 bits."""

    read_row_scales = False  # but those of blocks

    def __init__(self, graph: Graph, write: Write) -> None:
        self._graph, self._write = graph, write

    def ternary(self, x: str, stack: Stack, name: str) -> str:
        """[..., columns] to [..., rows]."""
        assert stack.groups == 1, "scales of groups are measured nowhere"
        return self._write(self._graph, x, stack, name)

    def int8(self, x: str, matrix: Int8Matrix, name: str) -> str:
        """The same with int8 rows that are in the graph."""
        graph, padded = self._graph, -(-matrix.columns // 16) * 16
        block = next(size for size in _HEAD_BLOCKS if padded % size == 0)
        blocks = graph.node("Reshape", [matrix.codes, graph.constant([matrix.rows, padded // block, block])])
        scales = np.repeat(matrix.values[:, None], padded // block, axis=1)
        given = [x, blocks, graph.initializer(f"{name}.block_scale", ElementType.FLOAT, scales.shape, [scales])]
        return _n_bits_node(graph, given, name, (matrix.columns, matrix.rows), 8, block)


def _weights(stack: Stack) -> NDArray[np.int8]:
    return np.concatenate([part.weights for part in stack.parts])


def way_of(key: str) -> Way:
    """One of WAYS, or nbitsBITS-BLOCK or nbitsBITS-BLOCK-LEVEL: MatMulNBits of any block and accuracy_level."""
    known = next((way for way in WAYS if way.key == key), None)
    if known is not None:
        return known
    found = re.fullmatch(r"nbits([248])-(\d+)(?:-([0-4]))?", key)
    if found is None:
        raise argparse.ArgumentTypeError(f"{key}: give {', '.join(way.key for way in WAYS)}, or nbitsBITS-BLOCK-LEVEL")
    bits, block, level = int(found[1]), int(found[2]), int(found[3] or _ACCURACY)
    name = f"MatMulNBits {bits} bits, blocks of {block}, level {level}"
    return Way(key, name, write=n_bits(bits, block, level))


def n_bits(bits: int, block: int, accuracy: int = _ACCURACY) -> Write:
    """MatMulNBits, with its default zero point."""

    def write(graph: Graph, x: str, stack: Stack, name: str) -> str:
        blocks = -(-stack.columns // block)
        codes = np.full((stack.rows, blocks * block), 1 << (bits - 1), np.uint8)
        codes[:, : stack.columns] += _weights(stack).view(np.uint8)  # modulo 256: 255 stands for -1
        packed = pack(codes.reshape(stack.rows, blocks, block), bits)
        by_row = np.broadcast_to(stack.scales().reshape(-1, 1), (stack.rows, blocks))
        scales = np.ascontiguousarray(by_row)
        given = [
            x,
            graph.initializer(f"{name}.weight", ElementType.UINT8, packed.shape, [packed]),
            graph.initializer(f"{name}.scale", ElementType.FLOAT, scales.shape, [scales]),
        ]
        return _n_bits_node(graph, given, name, (stack.columns, stack.rows), bits, block, accuracy)

    return write


def _n_bits_node(
    graph: Graph, given: list[str], name: str, size: tuple[int, int], bits: int, block: int, accuracy: int = _ACCURACY
) -> str:
    sizes = {"K": size[0], "N": size[1], "bits": bits, "block_size": block, "accuracy_level": accuracy}
    return graph.node("MatMulNBits", given, name, domain=MICROSOFT, **sizes)


def pack(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """8 / bits of the last axis in a byte, the first in its lowest bits."""
    split = values.reshape(*values.shape[:-1], -1, 8 // bits)
    packed = np.zeros(split.shape[:-1], np.uint8)
    for place in range(8 // bits):
        packed |= split[..., place] << (bits * place)
    return packed


def float32(graph: Graph, x: str, stack: Stack, name: str) -> str:
    """Weights widened to float32, and MatMul."""
    widened = np.ascontiguousarray((_weights(stack) * stack.scales().reshape(-1, 1)).T, np.float32)
    weight = graph.initializer(f"{name}.weight", ElementType.FLOAT, widened.shape, [widened])
    return graph.node("MatMul", [x, weight], name)


def dynamic_quantize(graph: Graph, x: str, stack: Stack, name: str) -> str:
    """DynamicQuantizeLinear (uint8, one scale for all tokens of a call) and MatMulInteger; ONNX Runtime fuses them."""
    columns, scales = np.ascontiguousarray(_weights(stack).T), stack.scales()
    weight = graph.initializer(f"{name}.weight", ElementType.INT8, columns.shape, [columns])
    scale = graph.initializer(f"{name}.scale", ElementType.FLOAT, scales.shape, [scales])
    q, q_scale, q_zero = (f"{name}.{part}" for part in ("q", "q_scale", "q_zero"))
    graph.node("DynamicQuantizeLinear", [x], f"{name}.quantize", outputs=[q, q_scale, q_zero])
    dots = graph.cast(graph.node("MatMulInteger", [q, weight, q_zero]), ElementType.FLOAT)
    return graph.node("Mul", [dots, graph.node("Mul", [q_scale, scale])], name)


WAYS = (
    Way("kernel", "edgebit's operator", body="kernel"),
    Way("compact", "its fallback, compact", body="compact"),
    Way("exact", "its fallback, exact", body="exact"),
    *(
        Way(f"nbits{bits}-{size}", f"MatMulNBits {bits} bits, blocks of {size}", write=n_bits(bits, size))
        for bits, size in _N_BITS
    ),
    Way("dynamic", "DynamicQuantizeLinear + MatMulInteger", write=dynamic_quantize),
    Way("float32", "MatMul float32", write=float32),
)
