"""A model in a GGUF file of any type gives what its Hugging Face form gives."""

import dataclasses
import json
from pathlib import Path

import gguf_files
import numpy as np
import pytest
from gguf_files import BF16, I2_S, TYPES, File, Row, floats, gguf_name, pack, pack_i2_s
from safetensors.numpy import load_file

from edgebit.bundle.model_format import (
    PROJECTIONS,
    Encoding,
    Role,
)
from edgebit.checkpoint.hints import Hints
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.export.to_gguf import export_gguf
from tests.checkpoint.gguf_file.tiny_model import PROJECTION_SHAPES, converted

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


def test_one_bit_weights_are_ternary_without_a_zero(tiny, tmp_path):
    model = tiny("llama")
    for weights in model.weights.values():
        weights[weights == 0] = -1

    checkpoint = open_checkpoint(model.gguf("Q1_0").write(tmp_path / "m.gguf"))

    assert np.array_equal(checkpoint.projection(Role.Q_PROJ, 0).weights, model.weights["self_attn.q_proj"])


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


def test_the_safetensors_library_reads_the_same_floats(tiny):
    """What the comparison above rests on: the folder holds what was meant."""
    model = tiny("bitnet")

    assert np.array_equal(
        load_file(model.hugging_face() / "model.safetensors")["model.norm.weight"], model.floats["model.norm.weight"]
    )
