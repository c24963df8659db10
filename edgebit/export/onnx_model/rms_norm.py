"""RMSNorm of plain operators, to the same bits as the engine's.

The mean of the squares is taken in double and rounded once (docs/decisions/norm-in-double.md). A norm in float32, as
runtimes have it, differs in its last bit, and then every few tokens a value on a tie is rounded to another integer.
Four times the mean and twice the root, which change no bit, stand here for the mean and the root: ONNX Runtime takes a
product with 1 / root for a division by it, which rounds otherwise.
"""

import numpy as np

from edgebit.export.onnx_model.graph import ElementType, Graph


def rms_norm(graph: Graph, x: str, weight: str, features: int, eps: float, name: str) -> str:
    """weight * (x * (1 / sqrt(mean(x^2) + eps))) over the last axis, which has `features` elements."""
    squares = graph.node("ReduceSumSquare", [graph.cast(x, ElementType.DOUBLE), graph.constant([-1])], keepdims=1)
    mean = graph.cast(graph.node("Div", [squares, graph.constant(features / 4, np.float64)]), ElementType.FLOAT)
    root = graph.node("Sqrt", [graph.node("Add", [mean, graph.constant(np.float32(eps) * 4, np.float32)])])
    inverse = graph.node("Div", [graph.constant(2, np.float32), root])
    return graph.node("Mul", [weight, graph.node("Mul", [x, inverse])], name)
