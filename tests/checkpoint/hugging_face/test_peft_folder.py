"""peft folders without torch: what is written is read, and what is no plain low-rank side path is refused."""

import json
import math

import numpy as np
import pytest

from edgebit.bundle.model_format import Role
from edgebit.checkpoint.hugging_face.checkpoint import open_hugging_face
from edgebit.checkpoint.hugging_face.lora_config import LoraConfig
from edgebit.checkpoint.hugging_face.peft_folder import (
    LowRankPair,
    PeftAdapter,
    read_peft_folder,
    write_peft_folder,
)
from edgebit.checkpoint.hugging_face.safetensors_file import write_safetensors
from edgebit.errors import CheckpointError

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


def make_adapter(config: LoraConfig, *, hidden: int = 256, ffn: int = 512, **more) -> PeftAdapter:
    rng = np.random.default_rng(7)

    def pair(module: str, rows: int, columns: int) -> LowRankPair:
        rank = config.rank_of(module)
        a, b = rng.normal(size=(rank, columns)), rng.normal(size=(rows, rank))
        return LowRankPair(a.astype(np.float32), b.astype(np.float32), config.scale_of(module))

    pairs = {
        (0, Role.Q_PROJ): pair("model.layers.0.self_attn.q_proj", hidden, hidden),
        (2, Role.DOWN_PROJ): pair("model.layers.2.mlp.down_proj", hidden, ffn),
    }
    return PeftAdapter(config, pairs, **more)


@pytest.fixture
def folder(tmp_path):
    """A folder with an adapter of rank 4."""
    write_peft_folder(tmp_path, make_adapter(LoraConfig(rank=4, alpha=8, target_modules=("q_proj", "down_proj"))))
    return tmp_path


def change_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def write_tensors(folder, tensors):
    described = {name: ("F32", values.shape) for name, values in tensors.items()}
    values = (np.asarray(values, np.float32) for values in tensors.values())
    write_safetensors(folder / "adapter_model.safetensors", described, values)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(rank=4, alpha=8.5, dropout=0.1, target_modules="all-linear", base_model="somewhere"),
        LoraConfig(
            rank=4,
            alpha=16,
            target_modules=("q_proj", "down_proj"),
            use_rslora=True,
            rank_pattern={"down_proj": 2},
            alpha_pattern={"^model.layers.2.mlp.down_proj": 3},
        ),
    ],
    ids=["plain", "patterns"],
)
def test_what_is_written_is_read(tmp_path, config):
    """Settings, values, scales and the base's sums."""
    written = make_adapter(config, base_sha256=("ab" * 32, "cd" * 32))
    write_peft_folder(tmp_path, written)

    read = read_peft_folder(tmp_path)

    assert (read.config, read.base_sha256) == (config, written.base_sha256)
    assert list(read.pairs) == [(0, Role.Q_PROJ), (2, Role.DOWN_PROJ)]
    for place, pair in read.pairs.items():
        assert np.array_equal(pair.a, written.pairs[place].a)
        assert np.array_equal(pair.b, written.pairs[place].b)
        assert pair.scale == written.pairs[place].scale


def test_scales_are_those_of_lora_and_rslora():
    """alpha / r and alpha / sqrt(r), by the module's own alpha and rank."""
    patterns = {"rank_pattern": {"mlp.down_proj": 4}, "alpha_pattern": {"^model.layers.1.mlp.down_proj": 6}}
    plain = LoraConfig(rank=16, alpha=8, **patterns)
    assert plain.scale_of("model.layers.0.self_attn.q_proj") == 0.5
    assert plain.scale_of("model.layers.0.mlp.down_proj") == 2.0
    assert plain.scale_of("model.layers.1.mlp.down_proj") == 1.5
    assert LoraConfig(rank=8, alpha=8, use_rslora=True).scale_of("x") == pytest.approx(8 / math.sqrt(8))


REFUSED_CONFIGS = [
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ({"use_dora": True}, "DoRA scales"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"lora_bias": True}, "lora_bias"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"trainable_token_indices": [1]}, "trained embeddings"),
    ({"init_lora_weights": "pissa_niter_4"}, "changes the base's weights"),
    ({"use_qalora": True}, "use_qalora is True: not known"),
    ({"of_next_year": 3}, "of_next_year is 3: not known"),
    ({"r": 0}, "r is 0"),
    ({"lora_alpha": float("nan")}, "lora_alpha"),
    ({"lora_alpha": 1e300}, "lora_alpha"),
    ({"lora_dropout": 1}, "lora_dropout"),
    ({"target_modules": [3]}, "target_modules"),
    ({"rank_pattern": {"(a+)+$": 2}}, "not by other expressions"),
    ({"r": 8}, "is of rank 4; adapter_config.json asks for 8"),
]


@pytest.mark.parametrize(("values", "promised"), REFUSED_CONFIGS, ids=[each[1] for each in REFUSED_CONFIGS])
def test_a_config_that_says_more_is_refused(folder, values, promised):
    """The refusal names the file and the key."""
    change_config(folder, **values)
    with pytest.raises(CheckpointError) as refused:
        read_peft_folder(folder)
    assert promised in str(refused.value)
    assert "adapter_config.json" in str(refused.value)


A, B = np.ones((4, 256)), np.ones((256, 4))
REFUSED_TENSORS = [
    ({f"{Q_PROJ}.lora_A.weight": A}, "q_proj has no lora_B"),
    ({f"{Q_PROJ}.lora_A.weight": A, f"{Q_PROJ}.lora_B.weight": np.full((256, 4), np.nan)}, "holds nan at row 0"),
    ({f"{Q_PROJ}.lora_A.weight": A, f"{Q_PROJ}.lora_B.weight": np.ones((256, 3))}, "of rank 3"),
    ({f"{Q_PROJ}.lora_A.weight": np.ones(4), f"{Q_PROJ}.lora_B.weight": B}, "a matrix of"),
    ({"base_model.model.lm_head.lora_A.weight": A}, "belongs to no projection"),
    ({"base_model.model.model.embed_tokens.lora_embedding_A": A}, "neither embeddings nor the head"),
    ({f"{Q_PROJ}.lora_magnitude_vector.weight": A}, "belongs to no projection"),
    ({"base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight": A}, "belongs to no projection"),
    ({}, "no adapter"),
]


@pytest.mark.parametrize(("tensors", "promised"), REFUSED_TENSORS, ids=[each[1] for each in REFUSED_TENSORS])
def test_tensors_that_are_no_pairs_are_refused(folder, tensors, promised):
    """The refusal names the file and the tensor."""
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError) as refused:
        read_peft_folder(folder)
    assert promised in str(refused.value)
    assert "adapter_model.safetensors" in str(refused.value)


def test_an_adapter_saved_by_pickle_is_told_the_way_out(folder):
    """adapter_model.bin alone."""
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="safe_serialization=True"):
        read_peft_folder(folder)


def test_an_adapter_of_another_base_is_refused(folder, reference_checkpoint):
    """By its shapes and by its layers."""
    adapter = read_peft_folder(folder)
    fitting = open_hugging_face(reference_checkpoint("bitnet-bf16"))
    adapter.check_base(fitting.config.conf, "bitnet-bf16")
    fitting.close()
    other = open_hugging_face(reference_checkpoint("llama-master"))
    with pytest.raises(CheckpointError, match=r"q_proj is \[\d+, \d+\], the adapter's pair is for \[256, 256\]"):
        adapter.check_base(other.config.conf, "llama-master")
    other.close()
    narrow = make_adapter(LoraConfig(rank=4, alpha=8), hidden=64, ffn=64)
    pairs = {(9, role): pair for (_, role), pair in narrow.pairs.items()}
    with pytest.raises(CheckpointError, match="has 3 layers, the adapter's last is 9"):
        PeftAdapter(narrow.config, pairs).check_base(fitting.config.conf, "bitnet-bf16")
