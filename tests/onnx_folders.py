"""A folder as `edgebit export onnx` writes them, made by hand: two layers, random weights, our Int8MatMul as its head.

For what a runner must do with a folder whatever the model; what an exported model computes is tested with real ones.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 2, 4, 2, 16, 96
HIDDEN = HEADS * HEAD_DIM
DOMAIN = "ai.edgebit"


def write_folder(
    folder: Path,
    *,
    vocab_size: int,
    tokenizer: bytes,
    program: bytes | None = None,
    ops: str = "contrib",
    fallback: str = "exact",
    logits: str = "last",
    own_head: bool = True,
    properties: dict[str, str | None] | None = None,
    ir_version: int = 10,
    opset: int = 0,
) -> Path:
    """Write it to the new `folder`; `properties` replace those of the metadata, None takes one away.

    own_head: False: without any operator of ours
    """
    folder.mkdir()
    (folder / "edgebit.tokn").write_bytes(tokenizer)
    if program is not None:
        (folder / "edgebit.prmt").write_bytes(program)
    nodes = [
        *_nodes_around(vocab_size, logits, own_head),
        *(node for layer in range(LAYERS) for node in _layer(layer, ops)),
    ]
    graph = helper.make_graph(nodes, "decoder", _inputs(), _outputs(vocab_size, logits), _weights(vocab_size))
    opset = opset or (24 if ops == "standard" else 18)
    opsets = [helper.make_opsetid(*each) for each in (("", opset), ("com.microsoft", 1), (DOMAIN, 1))]
    functions = [] if fallback == "none" else [_head_body(opset)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=ir_version)
    onnx.save(
        model,
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=256,
    )
    said = _properties(folder, vocab_size, ops, fallback) | (properties or {})
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    helper.set_model_props(model, {key: value for key, value in said.items() if value is not None})
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def _properties(folder: Path, vocab_size: int, ops: str, fallback: str) -> dict[str, str | None]:
    conf = {
        "n_layers": LAYERS,
        "n_kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": vocab_size,
        "context_max": CONTEXT,
        "bos_token": 0,
        "stop_tokens": [1],
        "generation": {"temperature": 0.0},
    }
    names = [name for name in ("model.onnx.data", "edgebit.tokn", "edgebit.prmt") if (folder / name).is_file()]
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    return {
        "edgebit.version": "0.1.0",
        "edgebit.source": "tiny-by-hand",
        "edgebit.conf": json.dumps(conf),
        "edgebit.ops": ops,
        "edgebit.fallback": fallback,
        "edgebit.files_sha256": json.dumps(sums),
    }


def _inputs() -> list[onnx.ValueInfoProto]:
    integers = helper.make_tensor_value_info
    past = [
        helper.make_tensor_value_info(
            f"past_key_values.{layer}.{part}", TensorProto.FLOAT, ["batch", KV_HEADS, "past", HEAD_DIM]
        )
        for layer in range(LAYERS)
        for part in ("key", "value")
    ]
    return [
        integers("input_ids", TensorProto.INT64, ["batch", "tokens"]),
        integers("attention_mask", TensorProto.INT64, ["batch", "all"]),
        *past,
    ]


def _outputs(vocab_size: int, logits: str) -> list[onnx.ValueInfoProto]:
    rows = 1 if logits == "last" else "tokens"
    present = [
        helper.make_tensor_value_info(
            f"present.{layer}.{part}", TensorProto.FLOAT, ["batch", KV_HEADS, "present", HEAD_DIM]
        )
        for layer in range(LAYERS)
        for part in ("key", "value")
    ]
    return [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", rows, vocab_size]), *present]


def _weights(vocab_size: int) -> list[onnx.TensorProto]:
    random = np.random.default_rng(7)

    def floats(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((0.3 * random.standard_normal(shape)).astype(np.float32), name)

    angles = np.outer(np.arange(CONTEXT), 1e4 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM))
    tensors = [
        floats("embedding", vocab_size, HIDDEN),
        numpy_helper.from_array(np.cos(angles).astype(np.float32), "cos"),
        numpy_helper.from_array(np.sin(angles).astype(np.float32), "sin"),
        numpy_helper.from_array(random.integers(1, 256, (vocab_size, HIDDEN), np.uint8), "head"),
        numpy_helper.from_array(np.full(vocab_size, 0.01, np.float32), "head_scale"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array(1, np.int64), "one"),
        numpy_helper.from_array(np.array([-1], np.int64), "minus_one"),
        numpy_helper.from_array(np.array([np.iinfo(np.int64).max], np.int64), "end"),
    ]
    for layer in range(LAYERS):
        tensors += [
            floats(f"q{layer}", HIDDEN, HIDDEN),
            floats(f"k{layer}", HIDDEN, KV_HEADS * HEAD_DIM),
            floats(f"v{layer}", HIDDEN, KV_HEADS * HEAD_DIM),
            floats(f"o{layer}", HIDDEN, HIDDEN),
        ]
    return tensors


def _nodes_around(vocab_size: int, logits: str, own_head: bool) -> list[onnx.NodeProto]:
    """What is before and behind the layers; ONNX wants no order here but that ORT sorts."""
    node = helper.make_node
    last = [node("Slice", [f"x{LAYERS}", "minus_one", "end", "axis"], ["rows"])]
    every = [node("Identity", [f"x{LAYERS}"], ["rows"])]
    own = [node("Int8MatMul", ["rows", "head", "head_scale"], ["logits"], domain=DOMAIN, K=HIDDEN, N=vocab_size)]
    plain = [
        node("Transpose", ["embedding"], ["columns"], perm=[1, 0]),
        node("MatMul", ["rows", "columns"], ["logits"]),
    ]
    return [
        node("Gather", ["embedding", "input_ids"], ["x0"]),
        node("ReduceSum", ["attention_mask", "axis"], ["sum"], keepdims=0),
        node("Sub", ["sum", "one"], ["last"]),
        node("Cast", ["last"], ["lengths"], to=TensorProto.INT32),
        node("Shape", ["attention_mask"], ["all"], start=1, end=2),
        node("Squeeze", ["all"], ["all_scalar"]),
        node("Cast", ["all_scalar"], ["total"], to=TensorProto.INT32),
        *(last if logits == "last" else every),
        *(own if own_head else plain),
    ]


def _layer(layer: int, ops: str) -> list[onnx.NodeProto]:
    node = helper.make_node
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    present = [f"present.{layer}.{part}" for part in ("key", "value")]
    projections = [node("MatMul", [f"x{layer}", f"{p}{layer}"], [f"{p}{layer}_out"]) for p in "qkv"]
    inputs = [f"{p}{layer}_out" for p in "qkv"]
    if ops == "contrib":
        attention = node(
            "GroupQueryAttention",
            [*inputs, *past, "lengths", "total", "cos", "sin"],
            [f"a{layer}", *present],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=1,
        )
    else:
        attention = node(
            "Attention",
            [*inputs, "", *past],
            [f"a{layer}", *present],
            q_num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            is_causal=1,
        )
    return [
        *projections,
        attention,
        node("MatMul", [f"a{layer}", f"o{layer}"], [f"o{layer}_out"]),
        node("Add", [f"x{layer}", f"o{layer}_out"], [f"x{layer + 1}"]),
    ]


def _head_body(opset: int) -> onnx.FunctionProto:
    """Int8MatMul in floats: close to the operator, which rounds activations, and enough to stand in for it."""
    node = helper.make_node
    nodes = [
        node("Cast", ["B"], ["codes"], to=TensorProto.FLOAT),
        node("Constant", [], ["zero"], value_float=128.0),
        node("Sub", ["codes", "zero"], ["weights"]),
        node("Transpose", ["weights"], ["columns"], perm=[1, 0]),
        node("MatMul", ["X", "columns"], ["dots"]),
        node("Mul", ["dots", "S"], ["Y"]),
    ]
    return helper.make_function(
        DOMAIN, "Int8MatMul", ["X", "B", "S"], ["Y"], nodes, [helper.make_opsetid("", opset)], ["K", "N"]
    )
