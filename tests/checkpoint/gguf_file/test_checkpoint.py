"""A model in a GGUF file of any type gives what its Hugging Face form gives."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import pytest
from gguf_files import BF16, F16, F32, I2_S, TYPES, File, Row, floats, gguf_name, interleave_heads, pack, pack_i2_s
from safetensors.numpy import load_file, save_file

from edgebit.bundle.model_format import (
    PER_ROW,
    PER_TENSOR,
    PROJECTIONS,
    Activation,
    ActivationQuantisation,
    Conf,
    Encoding,
    Norms,
    Role,
    Scales,
)
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.hints import I2S_DIALECTS, NO_HINTS, Hints
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checkpoint.rope import yarn_rope
from edgebit.convert import convert
from edgebit.errors import CheckpointError
from edgebit.export.to_gguf import export_gguf

SIZES = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}  # fmt: skip
PROJECTION_SHAPES = {
    "self_attn.q_proj": (256, 256), "self_attn.k_proj": (128, 256), "self_attn.v_proj": (128, 256),
    "self_attn.o_proj": (256, 256), "mlp.gate_proj": (512, 256), "mlp.up_proj": (512, 256), "mlp.down_proj": (256, 512),
}  # fmt: skip


def quarter_rows(weights: np.ndarray) -> np.ndarray:
    """transformers' packed form."""
    quarters = (weights + 1).astype(np.uint8).reshape(4, -1, weights.shape[1])
    return quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6


class Tiny:
    """A random ternary model of one layer, as a Hugging Face checkpoint and as a GGUF file."""

    def __init__(self, form: str, folder: Path, *, tied: bool = True) -> None:
        """form: bitnet (2B-4T), 1bitllm or llama."""
        self.form, self.folder, self.tied = form, folder, tied
        random = np.random.default_rng(3)
        self.weights = {
            name: random.integers(-1, 2, shape).astype(np.int8) for name, shape in PROJECTION_SHAPES.items()
        }
        self.scales = {name: float(2.0 ** random.integers(-3, 3)) for name in PROJECTION_SHAPES}
        norms = {"input_layernorm": 256, "post_attention_layernorm": 256}
        if form != "llama":
            subs = ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm")
            legacy = ("self_attn.inner_attn_ln", "mlp.ffn_layernorm")
            norms |= dict(zip(legacy if form == "1bitllm" else subs, (256, 512), strict=True))
        self.floats = {f"model.layers.0.{name}.weight": random.random(n, np.float32) + 0.5 for name, n in norms.items()}
        self.floats["model.norm.weight"] = random.random(256, np.float32) + 0.5
        self.floats["model.embed_tokens.weight"] = (
            random.standard_normal((96, 256)).astype(np.float16).astype(np.float32)
        )
        if not tied:
            self.floats["lm_head.weight"] = random.standard_normal((96, 256)).astype(np.float32)

    def hugging_face(self) -> Path:
        """The checkpoint's folder."""
        architecture, model_type, act = {
            "bitnet": ("BitNetForCausalLM", "bitnet", "relu2"),
            "1bitllm": ("BitnetForCausalLM", "llama", "silu"),
            "llama": ("LlamaForCausalLM", "llama", "silu"),
        }[self.form]
        quantised = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
        if self.form == "llama":
            quantised["linear_class"] = "bitlinear"
        config = {
            **SIZES, "architectures": [architecture], "model_type": model_type, "hidden_act": act,
            "tie_word_embeddings": self.tied, "bos_token_id": 1, "eos_token_id": 2,
            **({"weight_bits": 1, "input_bits": 8} if self.form == "1bitllm" else {"quantization_config": quantised}),
        }  # fmt: skip
        tensors = dict(self.floats)
        for name, weights in self.weights.items():
            scale = np.float32(self.scales[name])
            if self.form == "1bitllm":  # masters whose mean of absolute values is the scale
                magnitude = scale * np.float32(weights.size / np.count_nonzero(weights))
                tensors[f"model.layers.0.{name}.weight"] = weights * magnitude
            else:
                tensors[f"model.layers.0.{name}.weight"] = quarter_rows(weights)
                stored = np.float32(1) / scale if self.form == "llama" else scale
                tensors[f"model.layers.0.{name}.weight_scale"] = np.array([stored])
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(config))
        save_file(tensors, self.folder / "model.safetensors")
        return self.folder

    def gguf(self, kind: str, *, architecture: str | None = None, embedding: int = F32, **changes: Any) -> File:
        """The model with its projections in a type of TYPES, "F16", or "I2_S/" and a dialect."""
        name = architecture or {"bitnet": "bitnet-b1.58", "1bitllm": "bitnet", "llama": "llama"}[self.form]
        stops = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
        file = File(fields=gguf_files.keys(name, SIZES, **stops, **changes))
        for tensor, values in self.floats.items():
            file.tensors[gguf_name(tensor)] = floats(values, embedding if values.ndim == 2 else F32)
        for tensor, weights in self.weights.items():
            heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(tensor)
            rows = interleave_heads(weights, heads) if name == "llama" and heads else weights
            file.tensors[gguf_name(f"model.layers.0.{tensor}.weight")] = self._row(kind, rows, self.scales[tensor])
        return file

    def _row(self, kind: str, weights: np.ndarray, scale: float) -> Row:
        if kind == "F16":
            return floats(weights * np.float32(scale), F16)
        if kind.startswith("I2_S/"):
            return Row(I2_S, weights.shape, pack_i2_s(kind.removeprefix("I2_S/"), weights, scale))
        return Row(TYPES[kind].type_id, weights.shape, pack(kind, weights, scale))


@pytest.fixture
def tiny(tmp_path):
    def make(form: str, **options: Any) -> Tiny:
        return Tiny(form, tmp_path / "hf", **options)

    return make


def converted(path: Path, out: Path, hints: Hints = NO_HINTS) -> tuple[Conf, bytes]:
    """CONF and DATA of the model file that a checkpoint becomes."""
    convert(path, out, probes=False, hints=hints)
    with ModelFile(out) as file:
        return file.conf, bytes(file.content("DATA") or b"")


TERNARY_TYPES = [name for name in TYPES if name != "Q1_0"]  # of which that one has no zero
KINDS = [*TERNARY_TYPES, "F16", "I2_S/x86", "I2_S/arm", "I2_S/rows4"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["bitnet", "1bitllm", "llama"])
def test_a_gguf_file_becomes_the_model_that_its_checkpoint_becomes(form, kind, tiny, tmp_path):
    """The same tensors bit for bit, and the same configuration."""
    model = tiny(form, tied=form != "llama")
    file = model.gguf(kind).write(tmp_path / "m.gguf")
    dialect = kind.partition("/")[2] or None
    activations = "int8" if form == "llama" else None

    from_gguf = converted(file, tmp_path / "a", Hints(i2s_dialect=dialect, activations=activations))

    assert from_gguf == converted(model.hugging_face(), tmp_path / "b")


@pytest.mark.parametrize("kind", ["TQ2_0", "IQ1_BN", "I2_S/x86"])
def test_the_reference_model_as_gguf_is_the_same_model(kind, reference_checkpoint, tmp_path):
    """Three layers that transformers made; bf16 embedding and scales."""
    folder = reference_checkpoint("bitnet-packed")
    checkpoint = open_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    file = File(fields=gguf_files.keys("bitnet-b1.58", {**config, "rope_theta": 500000.0}))
    file.fields |= {"tokenizer.ggml.bos_token_id": config["bos_token_id"]}
    stored = load_bf16(folder / "model.safetensors")
    for name, (shape, bits) in stored.items():
        if name.endswith("weight_scale") or "_proj" in name:
            continue
        file.tensors[gguf_name(name)] = floats(bits.reshape(shape), BF16)
    for role, name in zip(PROJECTIONS, ("q", "k", "v", "output", "gate", "up", "down"), strict=True):
        for layer in range(checkpoint.config.conf.n_layers):
            projection = checkpoint.projection(role, layer)
            part = f"blk.{layer}.{'ffn' if role >= Role.GATE_PROJ else 'attn'}_{name}.weight"
            scale, shape = float(projection.scales[0]), projection.weights.shape
            packed = (
                Row(I2_S, shape, pack_i2_s("x86", projection.weights, scale))
                if kind == "I2_S/x86"
                else Row(TYPES[kind].type_id, shape, pack(kind, projection.weights, scale))
            )
            file.tensors[part] = packed

    conf, data = converted(file.write(tmp_path / "m.gguf"), tmp_path / "a", Hints(i2s_dialect="x86"))

    wanted, wanted_data = converted(folder, tmp_path / "b")
    assert data == wanted_data
    assert conf == dataclasses.replace(wanted, bos_token=conf.bos_token, stop_tokens=conf.stop_tokens)


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0", "i2_s"])
@pytest.mark.parametrize("form", ["bitnet", "1bitllm", "llama"])
def test_what_edgebit_exports_comes_back_as_the_same_model(form, kind, tiny, tmp_path):
    """Without loss: through GGUF to the same tensors and, its tokens aside, the same configuration."""
    folder = tiny(form, tied=form != "llama").hugging_face()
    export_gguf(folder, tmp_path / "m.gguf", kind=kind)

    conf, data = converted(tmp_path / "m.gguf", tmp_path / "a", Hints(i2s_dialect="x86", activations="int8"))

    wanted, wanted_data = converted(folder, tmp_path / "b")
    assert data == wanted_data
    assert conf == dataclasses.replace(wanted, bos_token=conf.bos_token, stop_tokens=conf.stop_tokens)


def load_bf16(path: Path) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    """Shape and bits of the bf16 tensors, which numpy has no type for."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    return {
        name: (tuple(entry["shape"]), np.frombuffer(raw[8 + size :][slice(*entry["data_offsets"])], "<u2"))
        for name, entry in header.items()
        if entry["dtype"] == "BF16"
    }


def test_files_of_the_gguf_package_are_read(tiny, tmp_path):
    """Written by its GGUFWriter, packed by its quantisers, the embedding in Q8_0 and the head in Q6_K's place F16."""
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    kinds = gguf.GGMLQuantizationType
    model = tiny("1bitllm", tied=False)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "bitnet")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(256)
    writer.add_block_count(1)
    writer.add_feed_forward_length(512)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(1.0)
    writer.add_vocab_size(96)
    for name, values in model.floats.items():
        kind = {"model.embed_tokens.weight": kinds.Q8_0, "lm_head.weight": kinds.F16}.get(name)
        if kind is None:
            writer.add_tensor(gguf_name(name), values)
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    for i, (name, weights) in enumerate(model.weights.items()):
        kind = (kinds.TQ1_0, kinds.TQ2_0)[i % 2]
        packed = gguf.quants.quantize(weights * np.float32(model.scales[name]), kind)
        writer.add_tensor(gguf_name(f"model.layers.0.{name}.weight"), packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    checkpoint = open_checkpoint(tmp_path / "m.gguf")

    for role, name in zip(PROJECTIONS, PROJECTION_SHAPES, strict=True):
        projection = checkpoint.projection(role, 0)
        assert np.array_equal(projection.weights, model.weights[name])
        assert projection.scales.tolist() == [model.scales[name]]
    embedding = model.floats["model.embed_tokens.weight"]
    read = np.concatenate([values for _, values in checkpoint.rows(Role.TOKEN_EMBEDDING)])
    packed = gguf.quants.quantize(embedding, kinds.Q8_0)
    assert np.array_equal(read, gguf.quants.dequantize(packed, kinds.Q8_0))
    assert checkpoint.embedding_encoding() == Encoding.F32 and not checkpoint.config.conf.head_tied
    assert "Q8_0 dequantised" in checkpoint.notes[0]
    checkpoint.close()


@pytest.mark.parametrize(
    ("architecture", "activation", "norms"),
    [
        ("bitnet", Activation.SILU, Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM),
        ("bitnet-25", Activation.RELU2, Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM),
        ("bitnet-b1.58", Activation.RELU2, Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM),
    ],
)
def test_the_activation_is_that_of_the_architecture(architecture, activation, norms, tiny, tmp_path):
    """SiLU in 1bitLLM's, squared ReLU in Microsoft's."""
    checkpoint = open_checkpoint(tiny("bitnet").gguf("TQ2_0", architecture=architecture).write(tmp_path / "m.gguf"))

    assert checkpoint.family == architecture
    assert (checkpoint.config.conf.activation, checkpoint.config.conf.norms) == (activation, norms)


def test_qwen3_has_norms_of_queries_and_keys_and_rows_in_their_own_order(tiny, tmp_path):
    """Bonsai's: a scale for 128 weights, float activations."""
    model = tiny("llama")
    file = model.gguf("Q2_0_128", architecture="qwen3")
    file.tensors["blk.0.attn_q_norm.weight"] = floats(np.full(64, 1.5, np.float32))
    file.tensors["blk.0.attn_k_norm.weight"] = floats(np.full(64, 2.5, np.float32))
    scales = np.random.default_rng(0).uniform(0.5, 2, (256, 2)).astype(np.float16)
    weights = model.weights["self_attn.q_proj"]
    file.tensors["blk.0.attn_q.weight"] = Row(42, weights.shape, pack("Q2_0_128", weights, scales))

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    conf = checkpoint.config.conf
    assert (conf.norms, conf.activation) == (Norms.QK_NORM, Activation.SILU)
    assert conf.activation_quantisation == ActivationQuantisation.INT15
    assert checkpoint.vector(Role.K_NORM, 0).tolist() == [2.5] * 64
    scaling = checkpoint.scaling(Role.Q_PROJ, 0)
    assert (scaling.granularity, scaling.group) == (Scales.GROUP, 128)
    projection = checkpoint.projection(Role.Q_PROJ, 0)
    assert np.array_equal(projection.weights, weights)
    assert np.array_equal(projection.scales, scales.astype(np.float32).T.reshape(-1))


def test_one_bit_weights_are_ternary_without_a_zero(tiny, tmp_path):
    model = tiny("llama")
    for weights in model.weights.values():
        weights[weights == 0] = -1

    checkpoint = open_checkpoint(model.gguf("Q1_0").write(tmp_path / "m.gguf"))

    assert np.array_equal(checkpoint.projection(Role.Q_PROJ, 0).weights, model.weights["self_attn.q_proj"])


@pytest.mark.parametrize(("kind", "columns"), [("Q4_0", 64), ("F16", 128), ("TQ2_0", 256)])
def test_scales_of_groups_are_as_wide_as_they_can_be(kind, columns, tiny, tmp_path):
    """Blocks of 32 weights whose scales agree, and floats that show no blocks at all."""
    model = tiny("bitnet")
    weights = model.weights["mlp.down_proj"]
    weights[:, ::32] = 1  # no block of zeros
    scales = np.random.default_rng(6).uniform(0.5, 2, (256, 512 // columns)).astype(np.float16)
    file = model.gguf("TQ2_0")
    wide = np.repeat(scales, columns, axis=1)
    file.tensors["blk.0.ffn_down.weight"] = (
        floats(weights * wide, F16)
        if kind == "F16"
        else Row(TYPES[kind].type_id, weights.shape, pack(kind, weights, wide[:, :: TYPES[kind].block]))
    )

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    scaling = checkpoint.scaling(Role.DOWN_PROJ, 0)
    assert (scaling.granularity, scaling.group) == (Scales.GROUP, columns)
    projection = checkpoint.projection(Role.DOWN_PROJ, 0)
    assert np.array_equal(projection.weights, weights)
    assert np.array_equal(projection.scales, scales.astype(np.float32).T.reshape(-1))


@pytest.mark.parametrize("kind", ["TQ2_0", "IQ2_BN", "F32"])
def test_scales_of_rows_move_with_their_rows(kind, tiny, tmp_path):
    """Of q, whose rows architecture llama has in another order."""
    model = tiny("llama")
    scales = np.random.default_rng(2).uniform(0.5, 2, 256).astype(np.float16)
    weights = model.weights["self_attn.q_proj"]
    weights[:, :2] = 1  # no row of zeros
    moved, moved_scales = interleave_heads(weights, 4), interleave_heads(scales, 4)
    file = model.gguf("TQ2_0")
    file.tensors["blk.0.attn_q.weight"] = (
        floats(moved * moved_scales[:, None].astype(np.float32))
        if kind == "F32"
        else Row(TYPES[kind].type_id, moved.shape, pack(kind, moved, moved_scales))
    )

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    assert checkpoint.scaling(Role.Q_PROJ, 0) == PER_ROW
    projection = checkpoint.projection(Role.Q_PROJ, 0)
    assert np.array_equal(projection.weights, weights) and np.array_equal(projection.scales, scales.astype(np.float32))


def test_a_block_with_scale_0_counts_as_any_scale_and_its_weights_as_0(tiny, tmp_path):
    model = tiny("bitnet")
    weights = model.weights["mlp.down_proj"]
    scales = np.full((256, 2), 0.75)
    scales[3, 1] = scales[7, 0] = 0
    file = model.gguf("TQ2_0")
    file.tensors["blk.0.ffn_down.weight"] = Row(35, weights.shape, pack("TQ2_0", weights, scales))

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    assert checkpoint.scaling(Role.DOWN_PROJ, 0) == PER_TENSOR
    projection = checkpoint.projection(Role.DOWN_PROJ, 0)
    wanted = weights.copy()
    wanted[3, 256:] = wanted[7, :256] = 0
    assert projection.scales.tolist() == [0.75] and np.array_equal(projection.weights, wanted)


def test_a_scale_tensor_multiplies(tiny, tmp_path):
    """As llama.cpp's converter of 1bitLLM's models wrote it in 2024: codes in the type, the scale beside it."""
    model = tiny("1bitllm")
    file = model.gguf("TQ2_0")
    file.tensors["blk.0.attn_q.scale"] = floats(np.array([0.5], np.float32))

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    assert checkpoint.projection(Role.Q_PROJ, 0).scales.tolist() == [model.scales["self_attn.q_proj"] * 0.5]


def test_a_head_that_is_the_embedding_once_more_is_tied(tiny, tmp_path):
    """The first upload of Microsoft's file has it twice."""
    model = tiny("bitnet")
    file = model.gguf("TQ2_0", architecture="bitnet-25", embedding=F16)
    file.tensors["output.weight"] = file.tensors["token_embd.weight"]

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    assert checkpoint.config.conf.head_tied and "tied" in checkpoint.notes[0]
    assert checkpoint.embedding_encoding() == Encoding.F16


def test_the_embedding_may_be_ternary(tiny, tmp_path):
    """Bonsai's is: exact in f16."""
    model = tiny("llama")
    weights = np.random.default_rng(4).integers(-1, 2, (96, 256)).astype(np.int8)
    scales = np.random.default_rng(5).uniform(0.5, 2, (96, 2)).astype(np.float16)
    file = model.gguf("Q2_0_128")
    file.tensors["token_embd.weight"] = Row(42, (96, 256), pack("Q2_0_128", weights, scales))

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    stored, values = next(checkpoint.rows(Role.TOKEN_EMBEDDING))
    assert checkpoint.embedding_encoding() == Encoding.F16 and stored.dtype == np.float16
    assert np.array_equal(values, weights * np.repeat(scales, 128, axis=1).astype(np.float32))
    assert np.array_equal(stored.astype(np.float32), values)


def test_rope_factors_divide_the_frequencies(tiny, tmp_path):
    """Llama 3.1's: a tensor of its own; and a linear scaling as a key."""
    factors = np.linspace(1, 8, 32, dtype=np.float32)
    file = tiny("llama").gguf("TQ2_0", **{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0})
    file.tensors["rope_freqs.weight"] = floats(factors)

    frequencies = open_checkpoint(file.write(tmp_path / "m.gguf")).config.rope_inv_freq

    assert np.allclose(frequencies * factors * 4, 10000.0 ** -(np.arange(0, 64, 2) / 64), rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "original", "factor", "fast_and_slow"),
    [
        ({"original_context_length": 32}, 32, 1.0, (32.0, 1.0)),
        ({}, 128, 1.0, (32.0, 1.0)),
        ({"attn_factor": 1.25, "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0}, 128, 1.25, (16.0, 2.0)),
    ],
)
def test_yarn_is_told_by_its_keys(more, original, factor, fast_and_slow, tiny, tmp_path):
    """The context before it was made longer is the model's own where no key says it; attention gets a factor."""
    scaling = {"type": "yarn", "factor": 4.0, **more}
    file = tiny("llama").gguf("TQ2_0", **{f"llama.rope.scaling.{key}": value for key, value in scaling.items()})

    config = open_checkpoint(file.write(tmp_path / "m.gguf")).config

    fast, slow = fast_and_slow
    attention = factor * (0.1 * math.log(4) + 1)
    wanted = yarn_rope(
        10000.0, 64, factor=4.0, original_context=original, attention_factor=attention, beta_fast=fast, beta_slow=slow
    )
    assert np.array_equal(config.rope_inv_freq, wanted.inv_freq)
    assert config.conf.rope_attention_factor == pytest.approx(attention, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "hint", "wanted", "noted"),
    [
        ("Falcon3-7B-Instruct-1.58bit", "TQ2_0", None, "INT8", False),
        ("TriLM_3.9B_Unpacked", "TQ2_0", None, "INT15", False),
        ("mine", "I2_S/x86", None, "INT8", False),
        ("mine", "TQ2_0", None, "INT15", True),
        ("mine", "TQ2_0", "int8", "INT8", False),
        ("Falcon3-7B-Instruct-1.58bit", "TQ2_0", "float", "INT15", False),
    ],
)
def test_what_activations_were_in_training_is_told_by_evidence_or_noted(
    name, kind, hint, wanted, noted, tiny, tmp_path
):
    file = tiny("llama").gguf(kind, **{"general.name": name}).write(tmp_path / "m.gguf")

    checkpoint = open_checkpoint(file, Hints(i2s_dialect="x86", activations=hint))

    assert checkpoint.config.conf.activation_quantisation.name == wanted
    assert any("--activations int8" in note for note in checkpoint.notes) == noted


def test_i2_s_of_an_unknown_file_is_refused_with_the_way_to_choose(tiny, tmp_path):
    file = tiny("bitnet").gguf("I2_S/x86").write(tmp_path / "m.gguf")

    with pytest.raises(CheckpointError, match=r"(?s)blk\.0\.attn_q.*I2_S.*--i2s-dialect.*--i2s-reference"):
        open_checkpoint(file)


@pytest.mark.parametrize("dialect", I2S_DIALECTS)
@pytest.mark.parametrize("form", ["bitnet", "llama"])
def test_the_checkpoint_that_a_file_was_made_from_tells_its_dialect(form, dialect, tiny, tmp_path):
    """Master weights or packed; the rows of q in another order with architecture llama."""
    model = tiny(form)
    file = model.gguf(f"I2_S/{dialect}").write(tmp_path / "m.gguf")

    checkpoint = open_checkpoint(file, Hints(i2s_reference=model.hugging_face()))

    projection = checkpoint.projection(Role.DOWN_PROJ, 0)
    assert np.array_equal(projection.weights, model.weights["mlp.down_proj"])
    assert f"dialect {dialect}" in checkpoint.notes[0]


def test_the_checkpoint_of_another_model_tells_no_dialect(tiny, reference_checkpoint, tmp_path):
    file = tiny("bitnet").gguf("I2_S/x86").write(tmp_path / "m.gguf")

    with pytest.raises(CheckpointError, match="in no dialect of I2_S its codes are those of"):
        open_checkpoint(file, Hints(i2s_reference=reference_checkpoint("bitnet-packed")))


def test_a_shape_that_a_dialect_cannot_have_is_refused(tiny, tmp_path):
    """Blocks of 128 columns where there are 64."""
    model = tiny("bitnet")
    file = model.gguf("I2_S/x86")
    file.fields |= {"bitnet-b1.58.attention.key_length": 16}
    for name, shape in {
        "attn_q": (64, 256),
        "attn_k": (32, 256),
        "attn_v": (32, 256),
        "attn_output": (256, 64),
    }.items():
        weights = model.weights["self_attn.q_proj"].reshape(-1)[: shape[0] * shape[1]].reshape(shape)
        file.tensors[f"blk.0.{name}.weight"] = Row(I2_S, shape, pack_i2_s("arm", weights, 1.0))
    file.tensors["blk.0.attn_sub_norm.weight"] = floats(np.ones(64, np.float32))

    with pytest.raises(CheckpointError, match=r"attn_output.*64 columns are no multiple of 128.*dialect x86 is wrong"):
        open_checkpoint(file.write(tmp_path / "m.gguf"), Hints(i2s_dialect="x86"))


def test_a_folder_with_one_gguf_file_is_that_file(tiny, tmp_path):
    """With two of them there is a choice to make, and a config.json makes it another checkpoint."""
    folder = tmp_path / "folder"
    folder.mkdir()
    tiny("bitnet").gguf("TQ2_0").write(folder / "m.gguf")

    assert open_checkpoint(folder).format == "gguf"

    (folder / "n.gguf").write_bytes((folder / "m.gguf").read_bytes())
    with pytest.raises(CheckpointError, match=r"2 GGUF files: m\.gguf, n\.gguf"):
        open_checkpoint(folder)


@pytest.fixture
def parts(tiny, tmp_path):
    """A model in three parts, the first without tensors, as gguf-split --no-tensor-first-split writes it."""

    def write(**changes: Any) -> list[Path]:
        whole = tiny("bitnet").gguf("TQ2_0")
        n_tensors = len(whole.tensors)
        names = list(whole.tensors)
        shares: list[list[str]] = [[], names[:5], names[5:]]
        paths = []
        for number, share in enumerate(shares):
            fields = {"split.no": number, "split.count": 3, "split.tensors.count": n_tensors, **changes}
            part = File(fields=whole.fields | fields if number == 0 else fields)
            part.tensors = {name: whole.tensors[name] for name in share}
            paths.append(part.write(tmp_path / f"m-{number + 1:05d}-of-00003.gguf"))
        return paths

    return write


def test_a_file_in_parts_is_one_model(parts, tiny, tmp_path):
    """Opened by any part, or by the folder."""
    paths = parts()
    one = tmp_path / "one"
    one.mkdir()
    whole = converted(tiny("bitnet").gguf("TQ2_0").write(one / "m.gguf"), one / "a")

    assert converted(paths[1], one / "b") == whole
    assert open_checkpoint(tmp_path).weight_files() == paths


def test_parts_that_do_not_belong_together_are_refused(parts):
    paths = parts(**{"split.tensors.count": 99})
    with pytest.raises(CheckpointError, match=r"split\.tensors\.count is 99"):
        open_checkpoint(paths[0])

    paths = parts(**{"split.no": 0})
    with pytest.raises(CheckpointError, match=r"00002-of-00003\.gguf: split\.no is 0, not 1"):
        open_checkpoint(paths[0])

    paths[2].unlink()
    with pytest.raises(CheckpointError, match=r"00003-of-00003\.gguf: this part is missing"):
        open_checkpoint(paths[0])


def test_hints_go_with_gguf_files_alone(reference_checkpoint):
    with pytest.raises(CheckpointError, match="--activations and --pre-tokenizer go with a GGUF file alone"):
        open_checkpoint(reference_checkpoint("bitnet-packed"), Hints(activations="int8"))


def test_the_safetensors_library_reads_the_same_floats(tiny):
    """What the comparison above rests on: the folder holds what was meant."""
    model = tiny("bitnet")

    assert np.array_equal(
        load_file(model.hugging_face() / "model.safetensors")["model.norm.weight"], model.floats["model.norm.weight"]
    )
