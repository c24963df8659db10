"""The scales of ternary tensors in GGUF files: by tensor, by row and by group."""

import numpy as np
import pytest
from gguf_files import F16, TYPES, Row, floats, interleave_heads, pack

from edgebit.bundle.model_format import (
    PER_ROW,
    PER_TENSOR,
    Activation,
    ActivationQuantisation,
    Granularity,
    Norms,
    Role,
)
from edgebit.checkpoint.opening import open_checkpoint


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
    assert (scaling.granularity, scaling.group) == (Granularity.GROUP, 128)
    projection = checkpoint.projection(Role.Q_PROJ, 0)
    assert np.array_equal(projection.weights, weights)
    assert np.array_equal(projection.scales, scales.astype(np.float32).T.reshape(-1))


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
    assert (scaling.granularity, scaling.group) == (Granularity.GROUP, columns)
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
