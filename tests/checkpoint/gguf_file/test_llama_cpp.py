"""GGUF files that llama.cpp's own quantiser writes are read to the weights they were made from; RoPEs are its own."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp quantises the files (pip install llama-cpp-python)")
gguf = pytest.importorskip("gguf", reason="the gguf package writes what is quantised (pip install gguf)")

from edgebit.bundle.model_format import PER_TENSOR, Role  # noqa: E402
from edgebit.checkpoint.hints import Hints  # noqa: E402
from edgebit.checkpoint.opening import open_checkpoint  # noqa: E402
from edgebit.convert import convert  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402

pytestmark = pytest.mark.reference
KINDS = gguf.GGMLQuantizationType
HIDDEN, FFN, HEADS, KV_HEADS, VOCAB, CONTEXT = 256, 512, 4, 2, 96, 256
SHAPES = {
    "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN // 2, HIDDEN), "attn_v": (HIDDEN // 2, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (FFN, HIDDEN), "ffn_up": (FFN, HIDDEN), "ffn_down": (HIDDEN, FFN),
}  # fmt: skip
ROLES = (Role.Q_PROJ, Role.K_PROJ, Role.V_PROJ, Role.O_PROJ, Role.GATE_PROJ, Role.UP_PROJ, Role.DOWN_PROJ)


class Source:
    """A random ternary model of two layers, arch llama, written in F32 by the gguf package."""

    def __init__(self) -> None:
        random = np.random.default_rng(11)
        self.weights = {
            f"blk.{layer}.{name}.weight": random.integers(-1, 2, shape).astype(np.int8)
            for layer in range(2)
            for name, shape in SHAPES.items()
        }
        self.scales = {name: float(2.0 ** -random.integers(3, 6)) for name in self.weights}
        self.embedding = random.standard_normal((VOCAB, HIDDEN)).astype(np.float32)
        self.head = random.standard_normal((VOCAB, HIDDEN)).astype(np.float32)

    def write(self, path: Path, more: Callable[[gguf.GGUFWriter], None] = lambda writer: None) -> Path:
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_name("tiny")
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(HIDDEN)
        writer.add_block_count(2)
        writer.add_feed_forward_length(FFN)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_rope_dimension_count(HIDDEN // HEADS)
        writer.add_vocab_size(VOCAB)
        writer.add_tokenizer_model("no_vocab")
        more(writer)
        ones = np.ones(HIDDEN, np.float32)
        writer.add_tensor("token_embd.weight", self.embedding)
        writer.add_tensor("output_norm.weight", ones)
        writer.add_tensor("output.weight", self.head)
        for layer in range(2):
            writer.add_tensor(f"blk.{layer}.attn_norm.weight", ones)
            writer.add_tensor(f"blk.{layer}.ffn_norm.weight", ones)
        for name, weights in self.weights.items():
            writer.add_tensor(name, weights * np.float32(self.scales[name]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def quantise(path: Path, out: Path, file_type: int, embedding: int, head: int) -> Path:
    """By llama_model_quantize."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.token_embedding_type, params.output_tensor_type, params.nthread = file_type, embedding, head, 1
    assert llama_cpp.llama_model_quantize(str(path).encode(), str(out).encode(), ctypes.byref(params)) == 0
    return out


def dequantise(path: Path, name: str) -> np.ndarray:
    """A tensor by ggml's C code."""
    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    (library,) = Path(llama_cpp.__file__).parent.glob("lib/libggml-base.so")
    function = getattr(ctypes.CDLL(str(library)), f"dequantize_row_{tensor.tensor_type.name.replace('Q', 'q')}")
    out = np.empty((VOCAB, HIDDEN), np.float32)
    function(tensor.data.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(out.size))
    return out


def rows_of_halves(weights: np.ndarray, n_heads: int) -> np.ndarray:
    """q or k with the halves of each head apart, where architecture llama has their rows in turn."""
    return np.concatenate([head[half::2] for head in np.split(weights, n_heads) for half in (0, 1)])


@pytest.mark.parametrize(("embedding", "head"), [("Q4_K", "Q6_K"), ("Q8_0", "Q4_K"), ("Q6_K", "Q8_0")])
@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_what_llama_cpp_quantises_is_read(kind, embedding, head, tmp_path):
    """The codes and scales that went in; the embedding and the head as ggml itself dequantises them."""
    source = Source()
    file_type = {"TQ1_0": llama_cpp.LLAMA_FTYPE_MOSTLY_TQ1_0, "TQ2_0": llama_cpp.LLAMA_FTYPE_MOSTLY_TQ2_0}[kind]
    whole = source.write(tmp_path / "f32.gguf")

    file = quantise(whole, tmp_path / "m.gguf", file_type, KINDS[embedding], KINDS[head])

    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert {types[name] for name in source.weights} == {kind}
    assert (types["token_embd.weight"], types["output.weight"]) == (embedding, head)
    checkpoint = open_checkpoint(file)
    for layer in range(2):
        for role, part in zip(ROLES, SHAPES, strict=True):
            name = f"blk.{layer}.{part}.weight"
            wanted, heads = source.weights[name], {"attn_q": HEADS, "attn_k": KV_HEADS}.get(part)
            projection = checkpoint.projection(role, layer)
            assert np.array_equal(projection.weights, rows_of_halves(wanted, heads) if heads else wanted)
            assert checkpoint.scaling(role, layer) == PER_TENSOR and projection.scales.tolist() == [source.scales[name]]
    for role, name in ((Role.TOKEN_EMBEDDING, "token_embd.weight"), (Role.HEAD, "output.weight")):
        read = np.concatenate([values for _, values in checkpoint.rows(role)])
        assert np.array_equal(read, dequantise(file, name))
    checkpoint.close()


def engine_logits(native, path: Path, ids: list[int]) -> np.ndarray:
    """float32 [tokens, vocabulary]"""
    with Model.open(native, path) as model, Engine(model, ctx_len=CONTEXT, logits_rows=len(ids), kv="f32") as engine:
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.frombuffer(engine.logits(row), np.float32) for row in range(len(ids))])


def llama_logits(path: Path, ids: list[int]) -> np.ndarray:
    """float32 [tokens, vocabulary], with a KV cache of f32."""
    model = llama_cpp.Llama(
        str(path), n_ctx=CONTEXT, n_batch=CONTEXT, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
    )
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def yarn(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(64)


def yarn_with_attention(writer: gguf.GGUFWriter) -> None:
    yarn(writer)
    writer.add_rope_scaling_attn_factors(1.25)


def yarn_of_the_context(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)


def linear(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def factors(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, HIDDEN // HEADS // 2, dtype=np.float32))


@pytest.mark.parametrize("rope", [yarn, yarn_with_attention, yarn_of_the_context, linear, factors])
def test_the_rope_is_llama_cpps(rope, native, tmp_path):
    """Float weights there, 15-bit activations and an int8 head here: logits differ by 1 % in the mean, and by more than
    10 % without these keys.
    """
    source, ids = Source(), np.random.default_rng(5).integers(0, VOCAB, 200).tolist()
    source.write(tmp_path / "m.gguf", rope)
    source.write(tmp_path / "plain.gguf")
    for name in ("m", "plain"):
        convert(tmp_path / f"{name}.gguf", tmp_path / f"{name}.ebm", probes=False, hints=Hints(activations="float"))

    wanted = llama_logits(tmp_path / "m.gguf", ids)
    found, plain = (engine_logits(native, tmp_path / f"{name}.ebm", ids) for name in ("m", "plain"))

    error, without = (np.abs(logits - wanted).mean() / wanted.std() for logits in (found, plain))
    print(f"{rope.__name__}: {error:.4f}, without {without:.4f}")
    assert error <= 0.01 and without >= 0.1
