"""What a GGUF file says of its model: architecture, RoPE, head, activations."""

import math

import numpy as np
import pytest
from gguf_files import F16, floats

from edgebit.bundle.model_format import (
    Activation,
    Encoding,
    Norms,
)
from edgebit.checkpoint.hints import Hints
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checkpoint.rope import yarn_rope
from edgebit.errors import CheckpointError


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


@pytest.mark.parametrize(
    ("architecture", "named", "activation"),
    [
        ("bitnet", "relu2", Activation.RELU2),
        ("bitnet", "silu", Activation.SILU),
        ("bitnet-b1.58", "silu", Activation.SILU),
        ("bitnet-b1.58", "relu2", Activation.RELU2),
    ],
)
def test_the_key_of_the_activation_overrules_the_architecture(architecture, named, activation, tiny, tmp_path):
    """Newer converters write it."""
    file = tiny("bitnet").gguf("TQ2_0", architecture=architecture, **{f"{architecture}.hidden_activation": named})

    assert open_checkpoint(file.write(tmp_path / "m.gguf")).config.conf.activation == activation


@pytest.mark.parametrize(("vocab_size", "activation"), [(128256, Activation.RELU2), (128255, Activation.SILU)])
def test_architecture_bitnet_with_the_vocabulary_of_2b_4t_has_squared_relu(vocab_size, activation, tiny, tmp_path):
    """As converters wrote that model before the key was there; said in a note."""
    file = tiny("1bitllm").gguf("TQ2_0")
    file.tensors["token_embd.weight"] = floats(np.zeros((vocab_size, 256), np.float16), F16)

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    assert checkpoint.config.conf.activation == activation
    assert any("squared ReLU" in note for note in checkpoint.notes) == (activation == Activation.RELU2)


def test_a_head_that_is_the_embedding_once_more_is_tied(tiny, tmp_path):
    """The first upload of Microsoft's file has it twice."""
    model = tiny("bitnet")
    file = model.gguf("TQ2_0", architecture="bitnet-25", embedding=F16)
    file.tensors["output.weight"] = file.tensors["token_embd.weight"]

    checkpoint = open_checkpoint(file.write(tmp_path / "m.gguf"))

    assert checkpoint.config.conf.head_tied and "tied" in checkpoint.notes[0]
    assert checkpoint.embedding_encoding() == Encoding.F16


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


@pytest.mark.parametrize(
    ("said", "hint", "wanted"), [("int8", None, "INT8"), ("float", None, "INT15"), ("float", "int8", "INT8")]
)
def test_the_key_of_our_own_export_says_what_activations_were(said, hint, wanted, tiny, tmp_path):
    """Before any name does; the user's word goes before it."""
    fields = {"general.name": "TriLM-1.58", "edgebit.activation_quantisation": said}
    file = tiny("llama").gguf("TQ2_0", **fields).write(tmp_path / "m.gguf")

    checkpoint = open_checkpoint(file, Hints(activations=hint))

    assert checkpoint.config.conf.activation_quantisation.name == wanted


def test_a_word_that_our_key_never_has_is_refused(tiny, tmp_path):
    file = tiny("llama").gguf("TQ2_0", **{"edgebit.activation_quantisation": "int4"}).write(tmp_path / "m.gguf")

    with pytest.raises(CheckpointError, match=r"edgebit\.activation_quantisation is 'int4'; known are"):
        open_checkpoint(file)


def test_hints_go_with_gguf_files_alone(reference_checkpoint):
    with pytest.raises(CheckpointError, match="--activations and --pre-tokenizer go with a GGUF file alone"):
        open_checkpoint(reference_checkpoint("bitnet-packed"), Hints(activations="int8"))
