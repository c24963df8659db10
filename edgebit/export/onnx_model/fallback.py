"""What our operators mean where nobody has registered a kernel for them: model-local functions of the same names.

exact: the same integers as the kernels, from ONNX's own operators; weights are unpacked to a byte each.
compact: ONNX Runtime's MatMulNBits, which rounds activations by block: another rule than the one the model was trained
with, a little off, and no larger than the packed weights. Block scales must be constants of the graph.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from edgebit.export.onnx_model.graph import Body, ElementType, Graph
from edgebit.export.onnx_model.projections import INT8, TERNARY
from edgebit.onnx_engine.folder import DOMAIN, MICROSOFT

Fallback = Literal["compact", "exact", "none"]
FALLBACK_OPSETS: Mapping[Fallback, Mapping[str, int]] = {"compact": {MICROSOFT: 1}, "exact": {}, "none": {}}
WITHOUT_LIBRARY: Mapping[Fallback, str] = {
    "compact": "without it MatMulNBits computes, whose numbers are near, not the same (fast from ONNX Runtime 1.28 on)",
    "exact": "without it plain operators compute the same numbers, from weights that take a byte each in memory",
    "none": "without it the graph does not load",
}
# Of MatMulNBits: int8 products. 0, of floats, is nearer to models trained with float activations, but takes hundreds of
# times as long (docs/decisions/onnx-fallbacks.md).
ACCURACY = 4
_INPUTS = ["X", "B", "S"]


def add_fallback(graph: Graph, fallback: Fallback, *, bits: int, grouped: bool, opsets: Mapping[str, int]) -> None:
    """Put the functions into the graph.

    bits: of activations; grouped: whether any projection has several scales in a row
    """
    if fallback == "none":
        return
    blocks = ["block_scales"] if fallback == "compact" else []
    ternary, int8 = Body([*_INPUTS, *blocks], ["Y"]), Body([*_INPUTS, *blocks], ["Y"])
    if fallback == "compact":
        _compact_ternary(ternary)
        _compact_int8(int8)
    else:
        _exact_ternary(ternary, bits=bits, grouped=grouped)
        _exact_int8(int8)
    for name, body, attributes in (
        (TERNARY, ternary, ["K", "N", "activation_bits", "block_size"]),
        (INT8, int8, ["K", "N", "block_size"]),
    ):
        graph.function(DOMAIN, name, body, [*_INPUTS, *blocks], ["Y"], attributes, opsets)


# ---- compact ----


def _compact_ternary(body: Body) -> None:
    rows = body.node("Transpose", ["B"], perm=[1, 3, 0, 2, 4])  # [N4, 4, G, C, 16]
    quarter = body.node("Div", [body.attribute("block_size"), body.constant([4])])
    tiles = body.node("Shape", ["B"], start=1, end=2)
    shape = [body.node("Mul", [tiles, body.constant([4])]), body.constant([-1]), quarter]
    blocks = body.node("Reshape", [rows, body.node("Concat", shape, axis=0)])
    first = [body.constant([0]), body.attribute("N"), body.constant([0])]
    _n_bits(body, body.node("Slice", [blocks, *first]), bits=2)


def _compact_int8(body: Body) -> None:
    shape = [body.attribute("N"), body.constant([-1]), body.attribute("block_size")]
    _n_bits(body, body.node("Reshape", ["B", body.node("Concat", shape, axis=0)]), bits=8)


def _n_bits(body: Body, blocks: str, *, bits: int) -> None:
    body.node_with(
        "MatMulNBits",
        ["X", blocks, "block_scales"],
        {"K": "K", "N": "N", "block_size": "block_size"},
        domain=MICROSOFT,
        outputs=["Y"],
        bits=bits,
        accuracy_level=ACCURACY,
    )


# ---- exact ----


def _exact_ternary(body: Body, *, bits: int, grouped: bool) -> None:
    planes, scale = _quantised_int8(body) if bits == 8 else _quantised_int15(body)
    weights = _unpacked(body)  # [G, K / G, N]
    two = body.constant(2, np.uint8)
    if not grouped:
        weights = body.node("Squeeze", [weights, body.constant([0])])
        dots = _dots(body, [(plane, weights) for plane in planes], two)
        _scaled(body, dots, body.node("Mul", [scale, "S"]))
        return
    by_group = [_by_group(body, plane) for plane in planes]  # [G, tokens, K / G]
    dots = _dots(body, [(plane, weights) for plane in by_group], two)
    groups = body.node("Shape", ["B"], start=0, end=1)
    shape = body.node("Concat", [groups, body.constant([1]), body.constant([-1])], axis=0)
    by_row = body.node("Reshape", ["S", shape])  # [G, 1, N], or [1, 1, 1]
    scales = body.node("Mul", [body.node("Reshape", [scale, body.constant([1, -1, 1])]), by_row])
    summed = body.node("ReduceSum", [body.node("Mul", [dots, scales]), body.constant([0, 1])], keepdims=0)
    tokens = body.node("Shape", ["X"], start=0, end=-1)
    body.node("Reshape", [summed, body.node("Concat", [tokens, body.attribute("N")], axis=0)], outputs=["Y"])


def _exact_int8(body: Body) -> None:
    planes, scale = _quantised_int15(body)
    columns = body.node("Transpose", ["B"], perm=[1, 0])
    weights = body.node("Slice", [columns, body.constant([0]), body.attribute("K"), body.constant([0])])
    dots = _dots(body, [(plane, weights) for plane in planes], body.constant(128, np.uint8))
    _scaled(body, dots, body.node("Mul", ["S", scale]))


def _scaled(body: Body, dots: str, scales: str) -> None:
    body.node("Squeeze", [body.node("Mul", [dots, scales]), body.constant([0])], outputs=["Y"])


def _quantised_int8(body: Body) -> tuple[list[str], str]:
    """X as code + 128, and each token's scale."""
    codes, scale = _absmax(body, most=127, smallest=1e-5, lowest=-128)
    return [_as_byte(body, codes)], scale


def _quantised_int15(body: Body) -> tuple[list[str], str]:
    """X as 128 high + low, both + 128, and each token's scale."""
    codes, scale = _absmax(body, most=16256, smallest=1e-20, lowest=-16256)
    number = [body.constant(value, np.float32) for value in (64, 1 / 128, 128)]
    high = body.node("Floor", [body.node("Mul", [body.node("Add", [codes, number[0]]), number[1]])])
    low = body.node("Sub", [codes, body.node("Mul", [high, number[2]])])
    return [_as_byte(body, high), _as_byte(body, low)], scale


def _absmax(body: Body, *, most: int, smallest: float, lowest: int) -> tuple[str, str]:
    """Rounded X, still as floats, and each token's scale."""
    largest = body.node("ReduceMax", [body.node("Abs", ["X"]), body.constant([-1])], keepdims=1)
    bounded = body.node("Max", [largest, body.constant(smallest, np.float32)])
    steps = body.constant(most, np.float32)
    turned = body.node("Round", [body.node("Mul", ["X", body.node("Div", [steps, bounded])])])
    codes = body.node("Clip", [turned, body.constant(lowest, np.float32), steps])
    return codes, body.node("Div", [bounded, steps])


def _as_byte(body: Body, codes: str) -> str:
    return body.cast(body.node("Add", [codes, body.constant(128, np.float32)]), ElementType.UINT8)


def _unpacked(body: Body) -> str:
    """Layout n2 as codes, [G, K / G, N]."""
    fields = body.node("Unsqueeze", ["B", body.constant([-1])])
    shifted = body.node("BitShift", [fields, body.constant([0, 2, 4, 6], np.uint8)], direction="RIGHT")
    codes = body.node("BitwiseAnd", [shifted, body.constant(3, np.uint8)])  # [G, N4, C, 4, 16, 4]
    by_column = body.node("Transpose", [codes], perm=[0, 2, 4, 5, 1, 3])
    groups, tiles = (body.node("Shape", ["B"], start=axis, end=axis + 1) for axis in (0, 1))
    rows = body.node("Mul", [tiles, body.constant([4])])
    whole = body.node("Reshape", [by_column, body.node("Concat", [groups, body.constant([-1]), rows], axis=0)])
    ends = [body.node("Div", [body.attribute("K"), groups]), body.attribute("N")]
    limits = [body.constant([0, 0]), body.node("Concat", ends, axis=0), body.constant([1, 2])]
    return body.node("Slice", [whole, *limits])


def _by_group(body: Body, plane: str) -> str:
    """[..., K] as [G, tokens, K / G]."""
    groups = body.node("Shape", ["B"], start=0, end=1)
    columns = body.node("Div", [body.attribute("K"), groups])
    shape = body.node("Concat", [body.constant([-1]), groups, columns], axis=0)
    return body.node("Transpose", [body.node("Reshape", [plane, shape])], perm=[1, 0, 2])


def _dots(body: Body, products: list[tuple[str, str]], weight_zero: str) -> str:
    """The integer products of one plane, or 128 times those of the first plus those of the second, as floats, [1, ...].

    The axis before the others keeps ONNX Runtime from making one operator of the product, the cast and the scales,
    which multiplies in another order.
    """
    middle, axis = body.constant(128, np.uint8), body.constant([0])
    dots = [
        body.node("Unsqueeze", [body.node("MatMulInteger", [plane, weights, middle, weight_zero]), axis])
        for plane, weights in products
    ]
    if len(dots) == 1:
        return body.cast(dots[0], ElementType.FLOAT)
    high, low = (body.cast(each, ElementType.INT64) for each in dots)
    both = body.node("Add", [body.node("Mul", [high, body.constant(128)]), low])
    return body.cast(both, ElementType.FLOAT)
