"""Which of a batch's tokens are there, and where they stand: attention_mask in the terms of the current ones."""

from edgebit.export.onnx_model.graph import ElementType, Graph

_END = (1 << 63) - 1


def token_count(graph: Graph) -> str:
    """S, the tokens of this run: [1]."""
    return graph.node("Shape", ["input_ids"], "token_count", start=1, end=2)


def current(graph: Graph, values: str, count: str, name: str | None = None) -> str:
    """Of values of past and current tokens, [P + S] or [B, P + S], those of the current ones, the last S."""
    limits = [graph.node("Neg", [count]), graph.constant([_END]), graph.constant([-1])]
    return graph.node("Slice", [values, *limits], name)


def current_mask(graph: Graph, count: str) -> str:
    """attention_mask of the tokens of this run: int32 [B, S]."""
    return graph.cast(current(graph, "attention_mask", count), ElementType.INT32)


def current_positions(graph: Graph, count: str) -> str:
    """How many tokens attention_mask has before each of this run, int64 [B, S]; 0 before the first."""
    counted = graph.node("CumSum", ["attention_mask", graph.constant(1)])
    before = graph.node("Max", [graph.node("Sub", [counted, graph.constant(1)]), graph.constant(0)])
    return current(graph, before, count, "positions")


def rows_at(graph: Graph, values: str, index: str, name: str) -> str:
    """values[b, index[b, i]] of values [B, S, n] and index [B, i]: [B, i, n]."""
    return graph.node("GatherND", [values, graph.node("Unsqueeze", [index, graph.constant([-1])])], name, batch_dims=1)


def last_row(graph: Graph, values: str, count: str) -> str:
    """Of values [B, S, n] those of the last token that attention_mask has: [B, 1, n]."""
    mask = current_mask(graph, count)
    index = graph.node("ArgMax", [mask], "last_token", axis=1, keepdims=1, select_last_index=1)
    return rows_at(graph, values, index, "wanted_tokens")
