"""Synthetic checkpoints are sound, of the asked shape, and the same for the same seed."""

import json
from dataclasses import replace

import pytest
from tokenizers import Tokenizer

from edgebit.bundle.model_format import Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.convert import convert
from edgebit.errors import CheckpointError
from edgebit.synthesize import SHAPES, synthesize


def test_it_converts_with_everything_inside(native, tmp_path):
    """Weights, tokenizer, chat template, licence and probes of the tiny shape."""
    synthesize("tiny", tmp_path / "checkpoint")
    report = convert(tmp_path / "checkpoint", tmp_path / "model.ebm")
    assert (report.has_tokenizer, report.has_chat_template, report.licence) == (True, True, "cc0-1.0")
    with ModelFile(tmp_path / "model.ebm") as model:
        model.verify()
        shape = SHAPES["tiny"]
        assert (model.conf.hidden_size, model.conf.ffn_size) == (shape.hidden_size, shape.ffn_size)
        first_special = shape.vocab_size - shape.n_specials
        assert (model.conf.bos_token, model.conf.stop_tokens) == (first_special, (first_special + 1, first_special + 9))


def test_it_tells_how_far_it_is(tmp_path):
    """By tensors, each in its turn, of all."""
    told = []
    synthesize("tiny", tmp_path / "m", shard_bytes=300_000, progress=lambda *step: told.append(step))
    assert [done for _, done, _ in told] == list(range(len(told)))
    assert {total for _, _, total in told} == {len(told)} and len({name for name, _, _ in told}) == len(told)


def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path):
    """Every file, for measurements that can be repeated."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesize("tiny", tmp_path / name, seed=seed)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    weights = "model.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "c" / weights).read_bytes()


def test_a_large_one_is_sharded(tmp_path):
    """Shards with their index, and the same weights as in one file."""
    synthesize("tiny", tmp_path / "one")
    synthesize("tiny", tmp_path / "many", shard_bytes=300_000)
    assert len(list((tmp_path / "many").glob("model-*-of-*.safetensors"))) >= 3
    models = []
    for name in ("one", "many"):
        convert(tmp_path / name, tmp_path / f"{name}.ebm", probes=False)
        with ModelFile(tmp_path / f"{name}.ebm") as model:
            models.append(model.content("DATA"))
    assert models[0] == models[1]


def test_its_tokenizer_is_one_that_hugging_face_reads(tmp_path):
    """Every id below the special ones stands for bytes of its own, and text comes back."""
    synthesize("tiny", tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == SHAPES["tiny"].vocab_size
    text = "Why is the sky blue? Schön, 你好."
    ids = tokenizer.encode(text).ids
    assert ids[0] == SHAPES["tiny"].vocab_size - SHAPES["tiny"].n_specials
    assert tokenizer.decode(ids) == text


def test_2b4t_has_the_published_number_of_parameters(tmp_path, monkeypatch):
    """2,412,820,480, and config.json as the real one says it; no weight is written here."""
    monkeypatch.setattr("edgebit.synthesize._write_weights", lambda *args: None)
    synthesize("2b4t", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (2560, 30, 128_256)
    with pytest.raises(CheckpointError, match="no weights"):
        open_checkpoint(tmp_path)
    assert len(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]) == 128_000


def test_1bitllm_3b_has_the_form_of_that_family(tmp_path, monkeypatch):
    """Its sizes, and 3.3 billion weights; no weight is written here."""
    monkeypatch.setattr("edgebit.synthesize._write_weights", lambda *args: None)
    synthesize("1bitllm-3b", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["BitnetForCausalLM"], "llama")
    assert (config["weight_bits"], config["input_bits"], config["hidden_act"]) == (1, 8, "silu")
    assert (config["hidden_size"], config["intermediate_size"], config["vocab_size"]) == (3200, 8640, 32_002)
    assert "quantization_config" not in config
    assert SHAPES["1bitllm-3b"].conf.head_dim == 100
    assert SHAPES["1bitllm-3b"].conf.parameters == 3_324_387_840


def test_random_masters_become_random_codes(native, tmp_path, monkeypatch):
    """The family of 1bitLLM in a small size: shards of float16, all three codes, probes."""
    small = replace(SHAPES["1bitllm-3b"], hidden_size=200, ffn_size=216, n_layers=2, n_heads=2, n_kv_heads=2)
    monkeypatch.setitem(SHAPES, "1bitllm-3b", replace(small, vocab_size=1026))
    synthesize("1bitllm-3b", tmp_path / "checkpoint", shard_bytes=300_000)
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    assert (checkpoint.family, len(checkpoint.weight_files())) == ("bitnet-1bitllm-master", 6)
    codes = checkpoint.projection(Role.DOWN_PROJ, 1).weights
    checkpoint.close()
    assert [round((codes == code).mean(), 1) for code in (-1, 0, 1)] == [0.3, 0.3, 0.3]
    report = convert(tmp_path / "checkpoint", tmp_path / "model.ebm")
    assert (report.n_probes, report.has_tokenizer) == (3, True)


def test_a_folder_in_use_is_left_alone(tmp_path):
    """Nothing is written over."""
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="is there already"):
        synthesize("tiny", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/x: cannot be written"):
        synthesize("tiny", tmp_path / "file" / "x")


def test_a_broken_off_checkpoint_leaves_nothing(tmp_path, monkeypatch):
    """After Ctrl-C the same command can be given again."""

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgebit.synthesize._write_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthesize("tiny", tmp_path / "new")
    assert not list(tmp_path.iterdir())
