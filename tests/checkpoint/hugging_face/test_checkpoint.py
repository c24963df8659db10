"""Checkpoints are read exactly, and a broken one is refused with words that say what is wrong where."""

import json
import math
import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest

from edgebit.bundle.model_format import Role
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checkpoint.rope import rope_inv_freq
from edgebit.convert import convert
from edgebit.errors import CheckpointError

RECIPES = Path(__file__).parent / "checkpoints"
BITS = {"F64": "<u8", "F32": "<u4", "BF16": "<u2", "I8": "<u1", "U8": "<u1"}
HIDDEN, FFN, HEADS, KV_HEADS, VOCAB = 64, 96, 2, 1, 32
LINEARS = {
    "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64), "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96),
}  # fmt: skip
NORMS = {
    "input_layernorm": 64, "post_attention_layernorm": 64, "self_attn.attn_sub_norm": 64, "mlp.ffn_sub_norm": 96,
}  # fmt: skip


def base_config(form: str) -> dict:
    return {
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "relu2",
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "online" if form == "masters" else "offline",
        },
    }  # fmt: skip


def base_tensors(form: str) -> dict[str, tuple[str, list[int], np.ndarray]]:
    """The tensors of a sound checkpoint of one layer: dtype, shape and values as they are stored."""
    rng = np.random.default_rng(5)

    def bf16(*shape: int) -> tuple[str, list[int], np.ndarray]:
        values = rng.standard_normal(shape, np.float32)
        return "BF16", list(shape), (values.view(np.uint32) >> 16).astype(np.uint16)

    tensors = {"model.embed_tokens.weight": bf16(VOCAB, HIDDEN), "model.norm.weight": bf16(HIDDEN)}
    for name, (rows, columns) in LINEARS.items():
        prefix = f"model.layers.0.{name}"
        if form == "masters":
            tensors[f"{prefix}.weight"] = bf16(rows, columns)
        else:
            codes = rng.integers(0, 3, (4, rows // 4, columns), dtype=np.uint8)
            packed = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6
            tensors[f"{prefix}.weight"] = ("U8", [rows // 4, columns], packed)
            tensors[f"{prefix}.weight_scale"] = ("BF16", [1], np.array([0x3F80], np.uint16))
    for name, size in NORMS.items():
        tensors[f"model.layers.0.{name}.weight"] = bf16(size)
    return tensors


def write_checkpoint(folder: Path, recipe: dict) -> None:
    """A sound checkpoint with the changes of a recipe: see checkpoints/README.md."""
    form = recipe.get("form", "packed")
    config = base_config(form) | recipe.get("config", {})
    for key in recipe.get("drop_config", []):
        del config[key]
    (folder / "config.json").write_text(recipe.get("config_text", json.dumps(config)))
    if "generation" in recipe:
        (folder / "generation_config.json").write_text(json.dumps(recipe["generation"]))
    tensors = base_tensors(form)
    for name, change in recipe.get("tensor", {}).items():
        if change.get("drop"):
            del tensors[name]
            continue
        dtype, shape, values = tensors.get(name, ("BF16", [HIDDEN], np.zeros(HIDDEN, np.uint16)))
        if "copy_of" in change:
            dtype, shape, values = tensors[change["copy_of"]]
        if "shape" in change:
            shape = change["shape"]
            values = np.resize(values, math.prod(shape))
        if "dtype" in change:
            dtype = change["dtype"]
            values = np.zeros(math.prod(shape), BITS[dtype])
        values = values.copy()
        for at, bits in change.get("put", []):
            values.reshape(-1)[at] = bits
        tensors[name] = (dtype, shape, values)
    shards = recipe.get("shards", 1)
    if shards == 1:
        write_damaged(folder / "model.safetensors", tensors, recipe)
    else:
        write_shards(folder, tensors, shards, recipe)
    for name in recipe.get("remove_files", []):
        (folder / name).unlink()


def write_damaged(path: Path, tensors: dict, recipe: dict) -> None:
    header: dict = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    for name, change in recipe.get("header", {}).items():
        header.setdefault(name, {}).update(change)
    text = recipe.get("header_text", json.dumps(header)).encode()
    if text == b"deep":
        text = b"[" * 200_000
    if recipe.get("header_twice"):
        text = text[:-1] + b"," + text[1:]
    size = recipe.get("header_size", len(text))
    size = 2**64 - 1 if size == "u64max" else size
    content = struct.pack("<Q", size) + text + data + bytes(recipe.get("append", 0))
    path.write_bytes(content[: recipe.get("cut_to", len(content) - recipe.get("cut", 0))])


def write_shards(folder: Path, tensors: dict, shards: int, recipe: dict) -> None:
    names, weight_map = sorted(tensors), {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard::shards]
        write_damaged(folder / file_name, {name: tensors[name] for name in part}, {})
        weight_map |= dict.fromkeys(part, file_name)
    weight_map |= recipe.get("weight_map", {})
    for name in recipe.get("drop_from_map", []):
        del weight_map[name]
    index = recipe.get("index_text", json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors.index.json").write_text(index)


def read_everything(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "model.ebm", probes=False)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_broken_checkpoint_is_refused(path, tmp_path):
    """The first line of each recipe says the words its refusal must hold; nothing is left of the model file."""
    promised = path.read_text().splitlines()[0].removeprefix("# ")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_checkpoint(folder, tomllib.loads(path.read_text()))

    with pytest.raises(CheckpointError) as refused:
        read_everything(folder, tmp_path)

    assert promised in str(refused.value)
    assert str(folder) in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("form", ["packed", "masters"])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_sound_checkpoint_of_the_recipes_is_read(form, shards, tmp_path):
    """What the recipes change is accepted unchanged: so each refusal is due to its change."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_checkpoint(folder, {"form": form, "shards": shards})
    read_everything(folder, tmp_path)
    assert (tmp_path / "model.ebm").is_file()


def test_one_shard_and_many_give_the_same_weights(tmp_path):
    """Only the names of the source files differ between the two model files."""
    files = []
    for shards in (1, 3):
        folder = tmp_path / f"checkpoint{shards}"
        folder.mkdir()
        write_checkpoint(folder, {"shards": shards})
        checkpoint = open_checkpoint(folder)
        files.append([checkpoint.projection(role, 0).weights for role in Role if role.is_projection])
        checkpoint.close()
    assert all(np.array_equal(one, many) for one, many in zip(*files, strict=True))


@pytest.mark.parametrize("kept", [None, [], ["lm_head"], ["model.embed_tokens", "lm_head"]])
def test_the_head_may_be_said_not_to_be_quantised(kept, tmp_path):
    """What converters write of themselves: the head, and the embedding that it is tied to."""
    config = base_config("packed")
    config["quantization_config"]["modules_to_not_convert"] = kept
    write_checkpoint(tmp_path, {"config": config})
    open_checkpoint(tmp_path).close()


def test_biases_of_zero_are_left_out_with_a_note(tmp_path):
    """Qwen2's class has biases; where they are zero, the model without them is the same."""
    names = [f"model.layers.0.self_attn.{name}_proj.bias" for name in "qo"]
    write_checkpoint(tmp_path, {"config": {"attention_bias": True}, "tensor": {name: {} for name in names}})
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.close()
    assert checkpoint.notes == ["2 biases are all zero and left out"]


def test_a_model_without_a_head_that_says_nothing_is_tied(tmp_path):
    """tie_word_embeddings is missing and so is lm_head.weight: with a note, the embedding is the head."""
    write_checkpoint(tmp_path, {"drop_config": ["tie_word_embeddings"]})
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.close()
    assert checkpoint.config.conf.head_tied
    assert "the embedding is taken for it" in checkpoint.notes[0]


def test_codes_that_were_unpacked_are_read_with_their_scale(tmp_path):
    """transformers saves -1, 0, 1 as floats beside weight_scale once it has loaded a packed model."""
    tensors = base_tensors("packed")
    name = "model.layers.0.mlp.up_proj.weight"
    packed = tensors[name][2]
    codes = np.concatenate([(packed >> 2 * quarter & 3).astype(np.int8) - 1 for quarter in range(4)])
    bits = (codes.astype(np.float32).view(np.uint32) >> 16).reshape(-1)
    put = [[at, int(value)] for at, value in enumerate(bits)]
    write_checkpoint(tmp_path, {"tensor": {name: {"dtype": "BF16", "shape": [96, 64], "put": put}}})
    checkpoint = open_checkpoint(tmp_path)
    found = checkpoint.projection(Role.UP_PROJ, 0)
    checkpoint.close()
    assert np.array_equal(found.weights, codes)
    assert found.scales.tolist() == [1.0]


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}},
        {"rope_theta": 777.0, "rope_scaling": None},
        {"rope_theta": 777.0, "dtype": "bfloat16", "rope_scaling": {"type": "default"}},
    ],
)
def test_theta_is_read_in_old_and_new_places(change, tmp_path):
    """transformers 5 keeps rope_theta in rope_parameters, older files at the top."""
    config = base_config("packed")
    del config["rope_theta"]
    write_checkpoint(tmp_path, {"config_text": json.dumps(config | change)})
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.close()
    assert np.array_equal(checkpoint.config.rope_inv_freq, rope_inv_freq(777.0, 32))


def test_a_new_file_without_theta_at_the_top_does_not_fall_back_to_the_default(tmp_path):
    """rope_parameters wins over the family's default."""
    recipe = {"config": {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}, "drop_config": ["rope_theta"]}
    write_checkpoint(tmp_path, recipe)
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.close()
    assert np.array_equal(checkpoint.config.rope_inv_freq, rope_inv_freq(5.0, 32))


def test_a_stored_inv_freq_is_ignored(tmp_path):
    """Older files hold this buffer; transformers computes it from theta, and so do we."""
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    write_checkpoint(tmp_path, {"tensor": {name: {"copy_of": "model.norm.weight"}}})
    open_checkpoint(tmp_path).close()


def test_weights_in_another_container_are_named(tmp_path):
    """Somebody with a .pth or .gguf file learns what is looked for."""
    write_checkpoint(tmp_path, {"remove_files": ["model.safetensors"]})
    (tmp_path / "consolidated.00.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"There is consolidated\.00\.pth, under none of these names"):
        open_checkpoint(tmp_path)


def test_stop_tokens_come_from_both_files(tmp_path):
    """generation_config.json's list first, then config.json's own, each once."""
    write_checkpoint(tmp_path, {"generation": {"eos_token_id": [9, 2], "temperature": 0.6, "top_p": 0.9}})
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.close()
    assert checkpoint.config.conf.stop_tokens == (9, 2)
    assert checkpoint.config.generation == {"temperature": 0.6, "top_p": 0.9}


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\nlanguage: en\nlicense: MIT\n---\n# x"}, "mit"),
        ({"LICENSE": "   Apache License\n Version 2.0"}, "apache-2.0"),
        ({"LICENSE": "do as you like"}, "other"),
        ({"README.md": "# no front matter\nlicense: mit"}, None),
        ({}, None),
    ],
)
def test_the_licence_is_found(files, licence, tmp_path):
    """README front matter, then a licence file; nothing is guessed."""
    write_checkpoint(tmp_path, {})
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.close()
    assert checkpoint.config.licence == licence
