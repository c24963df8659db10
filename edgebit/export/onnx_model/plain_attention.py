"""Attention of plain operators, for sizes that no runtime's own attention takes: any head_dim, any batch."""

import numpy as np

from edgebit.bundle.model_format import Conf
from edgebit.export.onnx_model.graph import ElementType, Graph
from edgebit.export.onnx_model.operators import LayerAttention, RopeTables, projected_apart
from edgebit.export.onnx_model.rms_norm import rms_norm
from edgebit.export.onnx_model.tokens import current_positions, last_row, token_count

_HIDDEN = -3.0e38  # a score that no softmax sees


class PlainOperators:
    """See Operators."""

    tokens = "input_ids"

    def __init__(self, graph: Graph, conf: Conf, rope: RopeTables) -> None:
        self._graph, self._conf = graph, conf
        self._count = token_count(graph)
        positions = current_positions(graph, self._count)
        self._cos, self._sin = (
            self._at_positions(f"rope.{name}", table, positions)
            for name, table in (("cos", rope.cos), ("sin", rope.sin))
        )
        self._bias = self._score_bias()

    def rms_norm(self, x: str, weight: str, features: int, eps: float, name: str) -> str:
        return rms_norm(self._graph, x, weight, features, eps, name)

    def attention(self, layer: LayerAttention) -> str:
        graph, conf, name = self._graph, self._conf, layer.name
        q, k, v = self._projected(layer)
        key = graph.node("Concat", [layer.past_key, self._rotate(k)], outputs=[layer.present_key], axis=2)
        value = graph.node("Concat", [layer.past_value, v], outputs=[layer.present_value], axis=2)
        scaled = graph.node("Mul", [self._rotate(q), graph.constant(conf.head_dim**-0.5, np.float32)])
        shared = graph.constant([0, conf.n_kv_heads, conf.n_heads // conf.n_kv_heads, -1, conf.head_dim])
        grouped = graph.node("Reshape", [scaled, shared])  # [B, kv heads, heads of each, S, head_dim]
        keys = graph.node("Transpose", [graph.node("Unsqueeze", [key, graph.constant([2])])], perm=[0, 1, 2, 4, 3])
        scores = graph.node("Add", [graph.node("MatMul", [grouped, keys]), self._bias])
        weights = graph.node("Softmax", [scores], axis=-1)
        mixed = graph.node("MatMul", [weights, graph.node("Unsqueeze", [value, graph.constant([2])])])
        heads = graph.node("Reshape", [mixed, graph.constant([0, conf.n_heads, -1, conf.head_dim])])
        by_token = graph.node("Transpose", [heads], perm=[0, 2, 1, 3])
        return graph.node("Reshape", [by_token, graph.constant([0, 0, -1])], f"{name}.attention")

    def wanted(self, hidden: str, *, last: bool) -> str:
        return last_row(self._graph, hidden, self._count) if last else hidden

    def _projected(self, layer: LayerAttention) -> list[str]:
        """q, k and v by heads: [B, heads, S, head_dim]."""
        graph, conf = self._graph, self._conf
        counts = [conf.n_heads, conf.n_kv_heads, conf.n_kv_heads]
        by_head = []
        for part, n in zip(projected_apart(graph, conf, layer), counts, strict=True):
            shaped = graph.node("Reshape", [part, graph.constant([0, 0, n, conf.head_dim])])
            by_head.append(graph.node("Transpose", [shaped], perm=[0, 2, 1, 3]))
        return by_head

    def _rotate(self, x: str) -> str:
        graph, half = self._graph, self._conf.head_dim // 2
        first, second = graph.split(x, [half, half], "halves")
        turned = [
            graph.node(join, [graph.node("Mul", [one, self._cos]), graph.node("Mul", [other, self._sin])])
            for join, one, other in (("Sub", first, second), ("Add", second, first))
        ]
        return graph.node("Concat", turned, axis=-1)

    def _at_positions(self, name: str, table: np.ndarray, positions: str) -> str:
        """[B, 1, S, head_dim / 2]"""
        initializer = self._graph.initializer(name, ElementType.FLOAT, table.shape, [table])
        return self._graph.node(
            "Unsqueeze", [self._graph.node("Gather", [initializer, positions]), self._graph.constant([1])]
        )

    def _score_bias(self) -> str:
        """0 where a token may look, else a number that rules it out: [B, 1, 1, S, P + S]."""
        graph = self._graph
        zero, one = graph.constant(0), graph.constant(1)
        total = graph.node("Squeeze", [graph.node("Shape", ["attention_mask"], start=1, end=2)])
        places = graph.node("Range", [zero, total, one])
        first = graph.node("Sub", [total, graph.node("Squeeze", [self._count])])
        rows = graph.node("Unsqueeze", [graph.node("Range", [first, total, one]), graph.constant([1])])
        earlier = graph.node("LessOrEqual", [places, rows])  # [S, P + S]
        known = graph.node("Unsqueeze", [graph.node("Greater", ["attention_mask", zero]), graph.constant([1, 2, 3])])
        seen = graph.node("And", [known, earlier])
        return graph.node("Where", [seen, graph.constant(0, np.float32), graph.constant(_HIDDEN, np.float32)])
