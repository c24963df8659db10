"""The graph's inputs and outputs: the same for all sets of operators."""

from edgebit.bundle.model_format import Conf
from edgebit.export.onnx_model.graph import Dims, ElementType, Graph


def declare_interface(graph: Graph, conf: Conf, *, last_logits: bool) -> None:
    """Tokens, mask and cache in; logits and cache out. B sequences, S tokens of each, after P that the cache has."""
    graph.input("input_ids", ElementType.INT64, ["batch", "sequence"])
    graph.input("attention_mask", ElementType.INT64, ["batch", "total"])
    logits: Dims = ["batch", 1 if last_logits else "sequence", conf.vocab_size]
    graph.output("logits", ElementType.FLOAT, logits)
    for layer in range(conf.n_layers):
        for part in ("key", "value"):
            dims: Dims = ["batch", conf.n_kv_heads, "past", conf.head_dim]
            graph.input(f"past_key_values.{layer}.{part}", ElementType.FLOAT, dims)
            grown: Dims = ["batch", conf.n_kv_heads, "total", conf.head_dim]
            graph.output(f"present.{layer}.{part}", ElementType.FLOAT, grown)
