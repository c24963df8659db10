"""Products with weights: our own operators' nodes, and the weights that they read."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import ActivationQuantisation, Conf
from edgebit.checkpoint.checkpoint import Projection
from edgebit.export.onnx_model.graph import ElementType, Graph
from edgebit.export.onnx_model.packing import int8_block, n2_chunks, n2_shape, padded_columns, ternary_block
from edgebit.onnx_engine.folder import DOMAIN

TERNARY, INT8 = "TernaryMatMul", "Int8MatMul"
ACTIVATION_BITS = {ActivationQuantisation.INT8: 8, ActivationQuantisation.INT15: 15}


@dataclass(frozen=True, slots=True)
class Stack:
    """Ternary projections that read the same input, under one another: one product gives all their outputs."""

    parts: tuple[Projection, ...]  # all but the last have a multiple of four rows
    groups: int  # scales of a row

    @property
    def rows(self) -> int:
        return sum(len(part.weights) for part in self.parts)

    @property
    def columns(self) -> int:
        return int(self.parts[0].weights.shape[1])

    def scales(self) -> NDArray[np.float32]:
        """[1] where all weights share one, [rows], or [groups, rows]."""
        if self.groups > 1:
            return np.concatenate([part.scales.reshape(self.groups, -1) for part in self.parts], axis=1)
        if all(part.scales.size == 1 and part.scales[0] == self.parts[0].scales[0] for part in self.parts):
            return self.parts[0].scales
        return np.concatenate([np.broadcast_to(part.scales, len(part.weights)) for part in self.parts])

    def block_scales(self, block: int) -> NDArray[np.float32]:
        """The scale of each `block` columns of a row: [rows, columns / block], rounded up."""
        by_row = np.broadcast_to(self.scales(), (self.groups, self.rows)).T
        return np.repeat(by_row, -(-self.columns // block) // self.groups, axis=1)


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """int8 rows that lie in the graph: names of its initializers, [rows, KP] as code + 128, and [rows]."""

    codes: str
    scales: str  # "" where nothing reads them
    values: NDArray[np.float32]  # of the scales
    columns: int

    @property
    def rows(self) -> int:
        return len(self.values)

    def block_scales(self, block: int) -> NDArray[np.float32]:
        """The scale of each `block` columns of a row: [rows, KP / block]."""
        return np.repeat(self.values[:, None], padded_columns(self.columns) // block, axis=1)


class Products(Protocol):
    """The products with weights, on one graph.

    read_row_scales: whether int8() reads Int8Matrix.scales
    """

    read_row_scales: bool

    def ternary(self, x: str, stack: Stack, name: str) -> str:
        """[..., columns] to [..., rows]; the weights are put into the graph."""
        ...

    def int8(self, x: str, matrix: Int8Matrix, name: str) -> str:
        """The same with rows that are there."""
        ...


class OwnProducts:
    """See Products: as the operators of docs/onnx.md."""

    read_row_scales = True

    def __init__(self, graph: Graph, conf: Conf, *, with_block_scales: bool) -> None:
        """with_block_scales: for a fallback of MatMulNBits, which computes zeros from scales that are no constants."""
        self._graph = graph
        self.grouped = False  # whether a projection has several scales in a row
        self.bits = ACTIVATION_BITS[conf.activation_quantisation]
        self._with_block_scales = with_block_scales

    def ternary(self, x: str, stack: Stack, name: str) -> str:
        self.grouped |= stack.groups > 1
        shape = n2_shape(stack.rows, stack.columns, stack.groups)
        packed = self._graph.initializer(
            f"{name}.weight", ElementType.UINT8, shape, n2_chunks(stack.parts, stack.groups)
        )
        block = ternary_block(stack.columns // stack.groups)
        inputs = [x, packed, self._scales(f"{name}.scale", stack.scales())]
        if self._with_block_scales:
            inputs.append(self._scales(f"{name}.block_scale", stack.block_scales(block)))
        made = self._graph.node(
            TERNARY,
            inputs,
            name,
            domain=DOMAIN,
            K=stack.columns,
            N=stack.rows,
            activation_bits=self.bits,
            block_size=block,
        )
        return self._graph.typed(made, ElementType.FLOAT, ["batch", "sequence", stack.rows])

    def int8(self, x: str, matrix: Int8Matrix, name: str) -> str:
        block = int8_block(matrix.columns)
        inputs = [x, matrix.codes, matrix.scales]
        if self._with_block_scales:
            inputs.append(self._scales(f"{name}.block_scale", matrix.block_scales(block)))
        return self._graph.node(INT8, inputs, name, domain=DOMAIN, K=matrix.columns, N=matrix.rows, block_size=block)

    def _scales(self, name: str, values: NDArray[np.float32]) -> str:
        return self._graph.initializer(name, ElementType.FLOAT, values.shape, [values])
