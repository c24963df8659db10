"""Operators of ONNX Runtime's own domain: GroupQueryAttention with its rotation; norms that it fuses into its own.

Sources: onnxruntime, docs/ContribOperators.md, com.microsoft.GroupQueryAttention; its helper's checks of sizes.
GroupQueryAttention takes the first sum(mask) positions of a sequence for its tokens. A batch that is filled up at the
left is therefore turned until its tokens begin the row, and turned back where all its logits are wanted.
"""

from edgebit.bundle.model_format import Conf
from edgebit.export.onnx_model.graph import ElementType, Graph
from edgebit.export.onnx_model.operators import Flavour, LayerAttention, Operators, RopeTables
from edgebit.export.onnx_model.plain_attention import PlainOperators
from edgebit.export.onnx_model.rms_norm import rms_norm
from edgebit.export.onnx_model.tokens import current_mask, rows_at, token_count
from edgebit.onnx_engine.folder import MICROSOFT

_HEAD_STEP = 16  # head_dim is a multiple of this where GroupQueryAttention rotates


class GroupQueryOperators:
    """See Operators. The model's head_dim is a multiple of 16."""

    def __init__(self, graph: Graph, conf: Conf, rope: RopeTables) -> None:
        self._graph, self._conf = graph, conf
        self._cos = graph.initializer("rope.cos", ElementType.FLOAT, rope.cos.shape, [rope.cos])
        self._sin = graph.initializer("rope.sin", ElementType.FLOAT, rope.sin.shape, [rope.sin])
        zero, one, axis = graph.constant(0), graph.constant(1), graph.constant([1])
        self._count = token_count(graph)
        mask = current_mask(graph, self._count)
        self._present = graph.node("ReduceSum", [graph.cast(mask, ElementType.INT64), axis], keepdims=1)  # [B, 1]
        length = graph.node("ReduceSum", ["attention_mask", axis], keepdims=0)
        some = graph.node("Max", [length, one])  # of an empty sequence -1 would be read as 2^32
        last = graph.node("Sub", [some, one])
        self._last_position = graph.cast(last, ElementType.INT32)  # [B]
        total = graph.node("Gather", [graph.node("Shape", ["attention_mask"]), one])
        self._total = graph.cast(total, ElementType.INT32)
        self._places = graph.node("Range", [zero, graph.node("Squeeze", [self._count]), one])
        self._filled = graph.node("ArgMax", [mask], "filled_at_the_left", axis=1, keepdims=1)  # [B, 1]
        self.tokens = graph.node("GatherElements", ["input_ids", self._turned("Add")], "tokens", axis=1)

    def rms_norm(self, x: str, weight: str, features: int, eps: float, name: str) -> str:
        return rms_norm(self._graph, x, weight, features, eps, name)

    def attention(self, layer: LayerAttention) -> str:
        inputs = [*layer.projected, *[""] * (3 - len(layer.projected)), layer.past_key, layer.past_value]
        attended = self._graph.node(
            "GroupQueryAttention",
            [*inputs, self._last_position, self._total, self._cos, self._sin],
            f"{layer.name}.attention",
            domain=MICROSOFT,
            outputs=[f"{layer.name}.attention", layer.present_key, layer.present_value],
            num_heads=self._conf.n_heads,
            kv_num_heads=self._conf.n_kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )
        return self._graph.typed(
            attended, ElementType.FLOAT, ["batch", "sequence", self._conf.n_heads * self._conf.head_dim]
        )

    def wanted(self, hidden: str, *, last: bool) -> str:
        if last:
            index = self._graph.node("Sub", [self._present, self._graph.constant(1)], "last_token")
        else:
            index = self._turned("Sub")
        return rows_at(self._graph, hidden, index, "wanted_tokens")

    def _turned(self, direction: str) -> str:
        """Places (place + or - what is filled up at the left) modulo the number of tokens: [B, S]."""
        moved = self._graph.node(direction, [self._places, self._filled])
        return self._graph.node("Mod", [moved, self._count])


def groups_queries(conf: Conf) -> bool:
    """Whether attention is GroupQueryAttention, which can write keys and values in place."""
    return conf.head_dim % _HEAD_STEP == 0


def _start(graph: Graph, conf: Conf, rope: RopeTables) -> Operators:
    return GroupQueryOperators(graph, conf, rope) if groups_queries(conf) else PlainOperators(graph, conf, rope)


CONTRIB = Flavour(name="contrib", opsets={"": 18, MICROSOFT: 1}, ir_version=8, start=_start)
