"""`edgebit convert --from-float`: an ordinary model is rounded where that is asked for, and says so ever after."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgebit.bundle.model_format import ActivationQuantisation, Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.hugging_face.families import FLOAT_FAMILIES, Family
from edgebit.checkpoint.hugging_face.safetensors_file import write_safetensors
from edgebit.checkpoint.model_file_checkpoint import open_model_file
from edgebit.cli import cli
from edgebit.errors import CheckpointError
from edgebit.ternary.absmean import absmean

LOST = "rounded to ternary without training"
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True, "sliding_window": None,
}  # fmt: skip
SHAPES = {
    Role.TOKEN_EMBEDDING: (96, 64), Role.FINAL_NORM: (64,), Role.INPUT_NORM: (64,), Role.POST_ATTENTION_NORM: (64,),
    Role.Q_PROJ: (64, 64), Role.K_PROJ: (32, 64), Role.V_PROJ: (32, 64), Role.O_PROJ: (64, 64),
    Role.GATE_PROJ: (128, 64), Role.UP_PROJ: (128, 64), Role.DOWN_PROJ: (64, 128),
    Role.ATTN_SUB_NORM: (64,), Role.FFN_SUB_NORM: (128,), Role.Q_NORM: (16,), Role.K_NORM: (16,),
}  # fmt: skip


def write_float_model(folder: Path, family: Family, **changes) -> dict[str, np.ndarray]:
    """An ordinary model of a family with random weights; its tensors."""
    rng = np.random.default_rng(3)
    architecture = family.architecture
    config = {"architectures": [architecture.class_name], "model_type": architecture.model_type, **SIZES, **changes}
    tensors = {}
    for role, name in family.tensor_names.items():
        for layer in range(2 if role.per_layer else 1):
            if role != Role.HEAD:
                tensors[name.format(layer)] = rng.normal(0, 0.1, SHAPES[role]).astype(np.float32)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    described = {name: ("F32", values.shape) for name, values in tensors.items()}
    write_safetensors(folder / "model.safetensors", described, tensors.values())
    return tensors


def family_of(name: str) -> Family:
    return next(family for family in FLOAT_FAMILIES if family.architecture.name == name)


def convert(*arguments: object):
    return CliRunner().invoke(cli, ["convert", *map(str, arguments), "--no-probes"])


@pytest.mark.parametrize("family", FLOAT_FAMILIES, ids=lambda family: family.name)
def test_an_ordinary_model_is_rounded_by_absmean(family, tmp_path):
    """Of each architecture: codes and scales are those of its weights, inputs are rounded to int8."""
    tensors = write_float_model(tmp_path / "float", family)

    done = convert(tmp_path / "float", "--from-float", "--out", tmp_path / "m.ebm")

    assert done.exit_code == 0, done.output
    with closing(open_model_file(tmp_path / "m.ebm")) as model:
        assert model.family == f"{family.architecture.name}-from-float"
        assert model.config.conf.activation_quantisation == ActivationQuantisation.INT8
        for role in (role for role in SHAPES if role.is_projection):
            codes, scale = absmean(tensors[family.tensor_name(role, 1)])
            projection = model.projection(role, 1)
            assert np.array_equal(projection.weights, codes)
            assert projection.scales.tolist() == [scale]


def test_the_loss_is_told_and_recorded(tmp_path):
    """In the command's words, in META, in what inspect shows, and where the model is exported again."""
    write_float_model(tmp_path / "float", family_of("llama"))
    done = convert(tmp_path / "float", "--from-float", "--out", tmp_path / "m.ebm")
    assert LOST in " ".join(done.output.split())
    assert "edgebit distill" in done.output
    with ModelFile(tmp_path / "m.ebm") as model:
        assert model.meta["quantisation"]["projections"] == "rounded without training"
    with closing(open_model_file(tmp_path / "m.ebm")) as model:
        assert any(LOST in note for note in model.notes)
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "m.ebm")])
    assert "projections rounded without training" in " ".join(shown.output.split())


def test_all_checks_compare_with_the_rounded_weights(native, tmp_path):
    write_float_model(tmp_path / "float", family_of("qwen3"))
    done = convert(tmp_path / "float", "--from-float", "--all-checks", "--out", tmp_path / "m.ebm", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["ok"] is True


@pytest.mark.parametrize("name", ["llama", "mistral", "bitnet"])
def test_without_the_flag_it_is_refused_and_both_ways_are_named(name, tmp_path):
    """Whether its class is known for ternary floats, for float models alone, or for ternary models alone."""
    write_float_model(tmp_path / "float", family_of(name))
    refused = convert(tmp_path / "float", "--out", tmp_path / "m.ebm")
    assert isinstance(refused.exception, CheckpointError)
    for word in ("--from-float", "edgebit distill", "loses most of its quality"):
        assert word in str(refused.exception)
    assert not (tmp_path / "m.ebm").exists()


@pytest.mark.parametrize("name", ["bitnet-packed", "bitnet-bf16", "trilm-f16", "legacy-1bitllm-f32"])
def test_a_ternary_model_is_not_rounded_again(name, reference_checkpoint, tmp_path):
    refused = convert(reference_checkpoint(name), "--from-float", "--out", tmp_path / "m.ebm")
    assert isinstance(refused.exception, CheckpointError)
    assert "is ternary already" in str(refused.exception)


def test_what_would_be_computed_otherwise_is_refused(tmp_path):
    """A window of attention, and biases that are not zero."""
    write_float_model(tmp_path / "windows", family_of("mistral"), sliding_window=4096)
    refused = convert(tmp_path / "windows", "--from-float", "--out", tmp_path / "m.ebm")
    assert "sliding_window is 4096" in str(refused.exception)

    tensors = write_float_model(tmp_path / "biased", family_of("qwen2"))
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.full(64, 0.5, np.float32)
    described = {name: ("F32", values.shape) for name, values in tensors.items()}
    write_safetensors(tmp_path / "biased" / "model.safetensors", described, tensors.values())
    refused = convert(tmp_path / "biased", "--from-float", "--out", tmp_path / "m.ebm")
    assert "biases other than zero are not known" in str(refused.exception)


def test_only_a_folder_can_be_rounded(tmp_path):
    """Neither a model file nor anything a GGUF hint goes with."""
    write_float_model(tmp_path / "float", family_of("llama"))
    convert(tmp_path / "float", "--from-float", "--out", tmp_path / "m.ebm")
    refused = convert(tmp_path / "m.ebm", "--from-float", "--out", tmp_path / "n.ebm")
    assert "no other format" in str(refused.exception)
    refused = convert(tmp_path / "float", "--from-float", "--activations", "float", "--out", tmp_path / "n.ebm")
    assert "go with a GGUF file alone" in str(refused.exception)
