"""A decoder's parts in ONNX's own operators: Attention of opset 24, RotaryEmbedding and RMSNormalization of 23.

Attention is given a whole mask, [B, 1, S, P + S]. One that is the same for all queries, [B, 1, 1, P + S], is refused by
ONNX Runtime 1.28 and later, and 1.24 reads beyond it: wrong answers without an error.
"""

import numpy as np

from edgebit.bundle.model_format import Conf
from edgebit.export.onnx_model.graph import ElementType, Graph
from edgebit.export.onnx_model.operators import Flavour, LayerAttention, RopeTables, projected_apart
from edgebit.export.onnx_model.tokens import current, current_positions, last_row, token_count


class StandardOperators:
    """Positions are counted by attention_mask, so batches may be padded at either side."""

    tokens = "input_ids"

    def __init__(self, graph: Graph, conf: Conf, rope: RopeTables) -> None:
        self._graph, self._conf = graph, conf
        self._count = token_count(graph)
        self._cos, self._sin = (
            graph.initializer(f"rope.{name}", ElementType.FLOAT, table.shape, [table])
            for name, table in (("cos", rope.cos), ("sin", rope.sin))
        )
        self._positions = current_positions(graph, self._count)
        self._mask = self._attention_mask()

    def rms_norm(self, x: str, weight: str, features: int, eps: float, name: str) -> str:
        return self._graph.node("RMSNormalization", [x, weight], name, axis=-1, epsilon=eps)

    def attention(self, layer: LayerAttention) -> str:
        graph, conf = self._graph, self._conf
        query, key, value = projected_apart(graph, conf, layer)
        rotated = self._rotated(query, conf.n_heads, f"{layer.name}.q_rotated")
        return graph.node(
            "Attention",
            [
                graph.node("Mul", [rotated, graph.constant(conf.head_dim**-0.5, np.float32)], f"{layer.name}.q"),
                self._rotated(key, conf.n_kv_heads, f"{layer.name}.k"),
                value,
                self._mask,
                layer.past_key,
                layer.past_value,
            ],
            f"{layer.name}.attention",
            outputs=[f"{layer.name}.attended", layer.present_key, layer.present_value],
            q_num_heads=conf.n_heads,
            kv_num_heads=conf.n_kv_heads,
            scale=1.0,  # with another, queries and keys are rounded after a product with its root
        )

    def wanted(self, hidden: str, *, last: bool) -> str:
        return last_row(self._graph, hidden, self._count) if last else hidden

    def _rotated(self, x: str, heads: int, name: str) -> str:
        return self._graph.node("RotaryEmbedding", [x, self._cos, self._sin, self._positions], name, num_heads=heads)

    def _attention_mask(self) -> str:
        """Which keys each query attends to, bool [B, 1, S, P + S]: itself, and those before it that are there.

        Itself in any case: one that attends to nothing is zero or NaN, as the runtime likes.
        """
        graph = self._graph
        size = graph.node("Squeeze", [graph.node("Shape", ["attention_mask"], start=1, end=2)])
        keys = graph.node("Range", [graph.constant(0), size, graph.constant(1)], "keys")
        places = current(graph, keys, self._count, "query_places")
        queries = graph.node("Unsqueeze", [places, graph.constant([1])], "queries")
        before, itself = graph.node("Less", [keys, queries]), graph.node("Equal", [keys, queries])
        there = graph.node("Unsqueeze", [graph.cast("attention_mask", ElementType.BOOL), graph.constant([1, 2])])
        return graph.node("Or", [graph.node("And", [there, before]), itself], "allowed")


STANDARD = Flavour(name="standard", opsets={"": 24}, ir_version=11, start=StandardOperators)
