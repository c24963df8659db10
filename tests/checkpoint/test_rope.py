"""Frequencies of plain and scaled RoPEs are those that transformers computes, within rounding to float32."""

import json

import numpy as np
import pytest

from edgebit.checkpoint.hugging_face.config_keys import ConfigKeys
from edgebit.checkpoint.hugging_face.rope_config import read_rope
from edgebit.checkpoint.rope import linear_rope, llama3_rope, rope_inv_freq, yarn_rope

ROUNDING = 3e-6  # transformers computes powers and the blend in float32
LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
CASES = {
    "default": ({"rope_theta": 10000.0}, 64),
    "falcon3": ({"rope_theta": 1000042.0}, 256),
    "in-rope-parameters": ({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, 100),
    "linear": ({"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}, 64),
    "llama3": ({"rope_theta": 500000.0, "rope_scaling": LLAMA3}, 128),
    "llama3-new-form": ({"rope_parameters": LLAMA3 | {"rope_theta": 500000.0, "factor": 8.0}}, 64),
    "yarn-qwen3": (
        {
            "rope_theta": 1000000.0,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
        128,
    ),
    "yarn-without-original": ({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 16.0}}, 64),
    "yarn-betas": (
        {
            "rope_theta": 150000.0,
            "rope_scaling": {
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 24.0, "beta_slow": 2.0, "truncate": False,
                "original_max_position_embeddings": 4096,
            },
        },
        64,
    ),
    "yarn-attention-factor": (
        {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "attention_factor": 1.5}}, 32,
    ),
    "yarn-mscale": (
        {
            "rope_theta": 10000.0,
            "rope_scaling": {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.2},
        },
        64,
    ),
}  # fmt: skip


def ours(tmp_path, config: dict, head_dim: int):
    return read_rope(ConfigKeys(tmp_path / "config.json", {"max_position_embeddings": 4096} | config), head_dim)


@pytest.mark.reference
@pytest.mark.parametrize("name", CASES)
def test_it_equals_transformers(name, tmp_path):
    """Frequencies within rounding, and the attention factor."""
    pytest.importorskip("torch", reason="transformers computes with torch")
    transformers = pytest.importorskip("transformers", reason="the reference implementation")
    utils = pytest.importorskip("transformers.modeling_rope_utils", reason="the reference implementation")
    config, head_dim = CASES[name]
    heads = 2
    theirs_config = transformers.LlamaConfig(
        hidden_size=heads * head_dim, num_attention_heads=heads, head_dim=head_dim, max_position_embeddings=4096,
        **json.loads(json.dumps(config)),
    )  # fmt: skip
    rope_type = theirs_config.rope_parameters["rope_type"]
    if rope_type == "default":
        rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(theirs_config)
        inv_freq, factor = rotary.inv_freq, rotary.attention_scaling
    else:
        inv_freq, factor = utils.ROPE_INIT_FUNCTIONS[rope_type](theirs_config, device="cpu")
    rope = ours(tmp_path, config, head_dim)
    np.testing.assert_allclose(rope.inv_freq, inv_freq.numpy(), rtol=ROUNDING)
    assert rope.attention_factor == pytest.approx(float(factor), rel=1e-6)


# Computed once with transformers 5.24: five elements from the first to the last, and the attention factor.
FIXED = {
    "linear": ([0.25, 0.03333804, 0.003333804, 0.0003333804, 3.333804e-05], 1),
    "llama3": ([1.0, 0.04616405, 0.0007625413, 2.040182e-06, 7.672315e-08], 1),
    "yarn-qwen3": ([1.0, 0.0392419, 0.0008029598, 9.810475e-06, 3.102344e-07], 1.13862944),
    "yarn-betas": ([1.0, 0.07374457, 0.0004092667, 5.950239e-06, 3.023511e-07], 1.34657359),
    "yarn-mscale": ([1.0, 0.1333521, 0.008334509, 3.333803e-05, 3.333804e-06], 0.873940458),
}


@pytest.mark.parametrize("name", FIXED)
def test_it_equals_fixed_numbers(name, tmp_path):
    """The same without transformers at hand."""
    config, head_dim = CASES[name]
    rope = ours(tmp_path, config, head_dim)
    some = rope.inv_freq[np.linspace(0, head_dim // 2 - 1, 5).astype(int)]
    np.testing.assert_allclose(some, FIXED[name][0], rtol=3e-6)
    assert rope.attention_factor == pytest.approx(FIXED[name][1], rel=1e-6)


def test_high_frequencies_stay_and_low_ones_are_divided(tmp_path):
    """The two ends of llama3 and YaRN are known without any table."""
    for name in ("llama3", "yarn-qwen3"):
        config, head_dim = CASES[name]
        plain = rope_inv_freq(config["rope_theta"], head_dim)
        scaled = ours(tmp_path, config, head_dim).inv_freq
        assert scaled[0] == plain[0]
        np.testing.assert_allclose(scaled[-1], plain[-1] / config["rope_scaling"]["factor"], rtol=1e-6)
        assert (np.diff(scaled) < 0).all()


@pytest.mark.parametrize("beta", [5e-324, 1e308])
def test_betas_of_any_size_give_frequencies(beta):
    """What a config.json says may be any number above 0: none of them ends in a traceback."""
    for betas in ({"beta_fast": beta}, {"beta_slow": beta}, {"beta_fast": beta, "beta_slow": beta}):
        rope = yarn_rope(1.0000001, 64, factor=4.0, original_context=2048, attention_factor=1.0, **betas)
        assert np.isfinite(rope.inv_freq).all()
        assert ((rope.inv_freq > 0) & (rope.inv_freq <= 1)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [5e-324, 1e-300, 1.0, 1e308])
@pytest.mark.parametrize("theta", [5e-324, 1e-300, 1 + 1e-9, 1e308])
def test_numbers_that_no_model_has_warn_nobody(theta, factor):
    """What becomes infinite is refused where checkpoints are opened."""
    rope_inv_freq(theta, 8)
    linear_rope(theta, 8, factor=factor)
    llama3_rope(theta, 8, factor=factor, low_freq_factor=1, high_freq_factor=4, original_context=8192)
    if theta > 1:
        yarn_rope(theta, 8, factor=factor, original_context=4096, attention_factor=1)
