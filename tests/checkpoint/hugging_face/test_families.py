"""Which family a checkpoint is of follows from config.json; ternary floats, from their values."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgebit.bundle.model_format import Activation, Norms, Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hugging_face.families import FAMILIES, Family, Scale
from edgebit.checkpoint.hugging_face.projections import ProjectionReader
from edgebit.checkpoint.hugging_face.tensor_folder import TensorFolder
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.convert import convert
from edgebit.errors import CheckpointError


@pytest.mark.parametrize(
    ("name", "family", "norms", "activation"),
    [
        ("bitnet-packed", "bitnet-packed", 3, "RELU2"),
        ("bitnet-bf16", "bitnet-master", 3, "RELU2"),
        ("bitnet-packed-odd-untied", "bitnet-packed", 3, "RELU2"),
        ("legacy-1bitllm-f32", "bitnet-1bitllm-master", 3, "SILU"),
        ("legacy-1bitllm-f16-head100", "bitnet-1bitllm-master", 3, "SILU"),
        ("llama-bitlinear-packed", "llama-bitlinear-packed", 0, "SILU"),
        ("llama-bitlinear-rmsnorm-packed", "llama-bitlinear-packed", 8, "SILU"),
        ("falcon3-packed", "llama-bitlinear-packed", 0, "SILU"),
        ("llama-master", "llama-master", 0, "SILU"),
        ("trilm-f16", "llama-ternary", 0, "SILU"),
        ("bonsai-f16", "qwen3-ternary", 4, "SILU"),
        ("qwen3-rmsnorm-packed", "qwen3-bitlinear-packed", 12, "SILU"),
        ("qwen2-zero-bias-packed", "qwen2-bitlinear-packed", 0, "SILU"),
    ],
)
def test_families_are_told_apart(reference_checkpoint, name, family, norms, activation):
    """The row of the family table follows from config.json alone."""
    checkpoint = open_checkpoint(reference_checkpoint(name))
    checkpoint.close()
    assert checkpoint.family == family
    assert checkpoint.config.conf.norms == Norms(norms)
    assert checkpoint.config.conf.activation == Activation[activation]


def scalings(folder: Path) -> dict[str, tuple[str, int]]:
    """Which weights share a scale, of each projection of layer 0."""
    checkpoint = open_checkpoint(folder)
    found = {role.name: checkpoint.scaling(role, 0) for role in Role if role.is_projection}
    checkpoint.close()
    return {name: (scaling.granularity.name, scaling.group) for name, scaling in found.items()}


def test_the_values_show_which_weights_share_a_scale(reference_checkpoint):
    """Shards that were cut along the columns, and groups of 128; a row is one scale where that is enough."""
    trilm, bonsai = scalings(reference_checkpoint("trilm-f16")), scalings(reference_checkpoint("bonsai-f16"))
    assert {name for name, scaling in trilm.items() if scaling == ("ROW", 0)} == trilm.keys() - {"DOWN_PROJ"}
    assert trilm["DOWN_PROJ"] == ("GROUP", 64)
    assert {name for name, scaling in bonsai.items() if scaling == ("ROW", 0)} == bonsai.keys() - {"DOWN_PROJ"}
    assert bonsai["DOWN_PROJ"] == ("GROUP", 128)


@pytest.mark.parametrize("name", ["trilm-f16", "bonsai-f16"])
def test_ternary_floats_lose_nothing(name, reference_checkpoint):
    """Every stored value is its code times its scale, bit for bit."""
    folder = reference_checkpoint(name)
    stored = load_file(folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    for role in (role for role in Role if role.is_projection):
        projection, name = checkpoint.projection(role, 0), role.name.lower()
        block = "mlp" if role in (Role.GATE_PROJ, Role.UP_PROJ, Role.DOWN_PROJ) else "self_attn"
        values = stored[f"model.layers.0.{block}.{name}.weight"]
        scales = projection.scales.reshape(-1, len(values), 1)
        groups = np.split(projection.weights, len(scales), axis=1)
        again = np.concatenate([group * scale for group, scale in zip(groups, scales, strict=True)], 1)
        assert np.array_equal(again.astype(np.float16), values)
    checkpoint.close()


def test_groups_that_one_row_shows_are_found(tmp_path):
    """Every row has one scale, but for one that no sample meets."""
    codes = np.random.default_rng(7).integers(-1, 2, (200, 512)).astype(np.int8)
    scales = np.full((4, 200), 0.5, np.float32)
    scales[1, 13] = 0.25
    values = (codes * np.repeat(scales.T, 128, axis=1)).astype(np.float16)
    save_file({"w": values}, tmp_path / "model.safetensors")
    with closing(TensorFolder(tmp_path)) as tensors:
        reader = ProjectionReader(tensors, Scale.STORED)
        assert reader.scaling("w").group == 128
        projection = reader.read("w")
    assert np.array_equal(projection.weights, codes)
    assert np.array_equal(projection.scales, scales.reshape(-1))


def test_a_row_beyond_the_sample_is_checked_as_well(reference_checkpoint, tmp_path):
    """A value beside its scale, where nothing was sampled, is found when the tensor is read, and its row is named."""
    folder = reference_checkpoint("trilm-f16")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.gate_proj.weight"][13, 5] = 0.7
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"mlp\.gate_proj\.weight is not ternary: row 13 holds 2 different magn"):
        convert(tmp_path, tmp_path / "model.ebm", probes=False)
    assert not list(tmp_path.glob("model.ebm*"))


def test_every_family_has_a_form_of_its_own():
    """No two rows match the same config.json."""
    assert len({family.form for family in FAMILIES}) == len(FAMILIES)


SOURCES = {
    "bitnet": "bitnet-packed", "bitnet-1bitllm": "legacy-1bitllm-f32", "llama": "falcon3-packed",
    "qwen3": "qwen3-rmsnorm-packed", "qwen2": "qwen2-zero-bias-packed",
}  # fmt: skip


def stored_as(scale: Scale, codes: np.ndarray, factor: float) -> tuple[np.ndarray, float | None]:
    """A projection, codes x factor, as a storage has it: its tensor, and the scale beside it."""
    if scale == Scale.ABSMEAN:
        return (codes * np.float32(factor / np.abs(codes).mean())).astype(np.float32), None
    if scale == Scale.STORED:
        return codes * np.float32(factor), None
    quarters = (codes + 1).astype(np.uint8).reshape(4, -1, codes.shape[1])
    packed = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
    return packed, factor if scale == Scale.MULTIPLY else 1 / factor


def rewrite(source: Checkpoint, family: Family, out: Path) -> None:
    """Write a checkpoint again, in the storage of another family of its architecture; norms of projections are lost."""
    config = json.loads((source.path / "config.json").read_text())
    config.pop("quantization_config", None)
    if family.storage.linear_class is not None:
        mode = family.storage.mode
        storage = {"linear_class": family.storage.linear_class, "quantization_mode": mode}
        config["quantization_config"] = {"quant_method": "bitnet", **storage}
    conf, tensors = source.config.conf, {}
    for role, layer in conf.roles():
        name = family.tensor_names.get(role, "").format(layer)
        if role.is_projection:
            read = source.projection(role, layer)
            tensors[name], scale = stored_as(family.storage.scale, read.weights, float(read.scales[0]))
            if scale is not None:
                tensors[f"{name}_scale"] = np.array([scale], np.float32)
        elif role == Role.TOKEN_EMBEDDING or (role == Role.HEAD and not conf.head_tied):
            tensors[name] = np.concatenate([values for _, values in source.rows(role)])
        elif name and role != Role.HEAD:
            tensors[name] = source.vector(role, layer)
    save_file(tensors, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_reads_the_same_model_in_its_storage(family, reference_checkpoint, tmp_path):
    """All rows of the table: each code as it was, each scale to the rounding of a float32, all norms and rows."""
    with closing(open_checkpoint(reference_checkpoint(SOURCES[family.architecture.name]))) as source:
        rewrite(source, family, tmp_path)
        with closing(open_checkpoint(tmp_path)) as found:
            assert found.family == family.name
            assert found.config.conf.activation_quantisation == family.storage.activations
            for role, layer in found.config.conf.roles():
                if role.is_projection:
                    was, now = source.projection(role, layer), found.projection(role, layer)
                    assert np.array_equal(now.weights, was.weights)
                    used = now.scales[now.scales != 0]  # of a row of zeros: 0
                    np.testing.assert_allclose(used, was.scales[0], rtol=1e-6)
                elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
                    was, now = (np.concatenate([row for _, row in model.rows(role)]) for model in (source, found))
                    assert np.array_equal(now, was)
                elif role != Role.ROPE_INV_FREQ:
                    assert np.array_equal(found.vector(role, layer), source.vector(role, layer))
