"""Which of a batch's tokens are there: attention_mask in the terms of the current ones."""

from edgebit.export.onnx_model.graph import ElementType, Graph

_END = (1 << 63) - 1


def token_count(graph: Graph) -> str:
    """S, the tokens of this run: [1]."""
    return graph.node("Shape", ["input_ids"], "token_count", start=1, end=2)


def current_mask(graph: Graph, count: str) -> str:
    """attention_mask of the tokens of this run: int32 [B, S]."""
    ends = [graph.constant([_END]), graph.constant([1])]
    current = graph.node("Slice", ["attention_mask", graph.node("Neg", [count]), *ends])
    return graph.cast(current, ElementType.INT32)


def rows_at(graph: Graph, values: str, index: str, name: str) -> str:
    """values[b, index[b, i]] of values [B, S, n] and index [B, i]: [B, i, n]."""
    return graph.node("GatherND", [values, graph.node("Unsqueeze", [index, graph.constant([-1])])], name, batch_dims=1)
