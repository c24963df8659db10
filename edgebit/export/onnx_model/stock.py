"""Products with weights as ONNX Runtime's own MatMulNBits: no operator of ours, so no library and no function.

It rounds activations to int8 by block of weights, where the engine rounds them by token: near what the model computes,
not the same. Source: onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulNBits.
"""

import numpy as np
from numpy.typing import NDArray

from edgebit.export.onnx_model.fallback import ACCURACY
from edgebit.export.onnx_model.graph import ElementType, Graph
from edgebit.export.onnx_model.packing import int8_block, row_chunks, ternary_block
from edgebit.export.onnx_model.projections import Int8Matrix, Stack
from edgebit.onnx_engine.folder import MICROSOFT

STOCK_OPSETS = {MICROSOFT: 1}
STOCK_LAYOUT = "rows"  # of ternary weights: one row after the other


class StockProducts:
    """See Products."""

    read_row_scales = False  # but those of blocks

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def ternary(self, x: str, stack: Stack, name: str) -> str:
        block = ternary_block(stack.columns // stack.groups)
        shape = (stack.rows, -(-stack.columns // block), block // 4)
        weight = self._graph.initializer(f"{name}.weight", ElementType.UINT8, shape, row_chunks(stack.parts, block))
        return self._n_bits(x, weight, stack.block_scales(block), (stack.columns, block, 2), name)

    def int8(self, x: str, matrix: Int8Matrix, name: str) -> str:
        block = int8_block(matrix.columns)
        shape = self._graph.constant([matrix.rows, -1, block])
        blocks = self._graph.node("Reshape", [matrix.codes, shape], f"{name}.blocks")
        return self._n_bits(x, blocks, matrix.block_scales(block), (matrix.columns, block, 8), name)

    def _n_bits(self, x: str, weight: str, scales: NDArray[np.float32], sizes: tuple[int, int, int], name: str) -> str:
        """sizes: columns, block, bits. Scales are constants: from others, int8 products would be zeros."""
        columns, block, bits = sizes
        scale = self._graph.initializer(f"{name}.block_scale", ElementType.FLOAT, scales.shape, [scales])
        return self._graph.node(
            "MatMulNBits",
            [x, weight, scale],
            name,
            domain=MICROSOFT,
            K=columns,
            N=len(scales),
            bits=bits,
            block_size=block,
            accuracy_level=ACCURACY,
        )
