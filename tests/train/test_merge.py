"""`edgebit merge`: the weights that are written, and that what rounding leaves of an adapter is told as it is."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from edgebit.bundle.archive import hash_file
from edgebit.bundle.model_format import Role
from edgebit.checkpoint.hugging_face.lora_config import LoraConfig
from edgebit.checkpoint.hugging_face.peft_folder import LowRankPair, PeftAdapter, module_name, write_peft_folder
from edgebit.checkpoint.hugging_face.safetensors_file import SafetensorsFile, as_float32
from edgebit.cli import cli
from edgebit.errors import CheckpointError, ExportError
from edgebit.merge import measure, merge, verdict
from edgebit.ternary.absmean import absmean

PLACES = {(0, Role.Q_PROJ): (256, 256), (2, Role.DOWN_PROJ): (256, 512)}


def write_adapter(folder, *, size: float, pairs=PLACES, alpha: float = 8, base=()):
    """An adapter of rank 4 whose pairs add weights of about `size`."""
    rng, config = np.random.default_rng(5), LoraConfig(rank=4, alpha=alpha, target_modules=("q_proj", "down_proj"))
    made = {}
    for (layer, role), (rows, columns) in pairs.items():
        a, b = rng.standard_normal((4, columns), np.float32), rng.standard_normal((rows, 4), np.float32)
        made[layer, role] = LowRankPair(a, b * np.float32(size / 4), config.scale_of(module_name((layer, role))))
    folder.mkdir()
    write_peft_folder(folder, PeftAdapter(config, made, base))
    return made


def tensors_of(folder):
    file = SafetensorsFile(folder / "model.safetensors")
    values = {name: as_float32(file.read(name), info.dtype) for name, info in file.tensors.items()}
    file.close()
    return values


def test_the_pair_is_added_to_the_latent_weights(reference_checkpoint, tmp_path):
    """In the type they had; all other tensors and files stay, and the counts are those of the files."""
    master = tmp_path / "master"
    shutil.copytree(reference_checkpoint("bitnet-bf16"), master)
    (master / "response_schema.json").write_text('{"type": "string"}')
    pairs = write_adapter(tmp_path / "adapter", size=0.3)

    report = merge(master, tmp_path / "adapter", tmp_path / "out")

    before, after = tensors_of(master), tensors_of(tmp_path / "out")
    names = {module_name(place) + ".weight": pair for place, pair in pairs.items()}
    assert before.keys() == after.keys()
    assert {name for name in before if not np.array_equal(before[name], after[name])} == names.keys()
    for each, (name, pair) in zip(
        sorted(report.projections, key=lambda each: each.name), sorted(names.items()), strict=True
    ):
        wanted = before[name] + 2 * (pair.b.astype(np.float64) @ pair.a)
        assert np.allclose(after[name], wanted, rtol=2**-8, atol=1e-6)
        changed = int((absmean(before[name])[0] != absmean(after[name])[0]).sum())
        assert (each.name + ".weight", each.codes_changed) == (name, changed)
    for name in ("config.json", "tokenizer.json", "generation_config.json", "response_schema.json"):
        assert (tmp_path / "out" / name).read_bytes() == (master / name).read_bytes()


def test_a_small_update_is_said_to_be_lost_and_a_large_one_to_be_kept_in_part(reference_checkpoint, tmp_path):
    """What is told follows from the outputs of both, not from the size of the update."""
    master = reference_checkpoint("bitnet-bf16")
    write_adapter(tmp_path / "small", size=1e-6)
    write_adapter(tmp_path / "large", size=0.5)

    small = merge(master, tmp_path / "small", tmp_path / "a")
    large = merge(master, tmp_path / "large", tmp_path / "b")

    assert small.codes_changed <= 4
    assert small.error > 0.9
    assert verdict(small) == "lost"
    assert large.codes_changed / large.weights > 0.05
    assert large.kept > 0.3
    assert large.error < small.error


def test_an_effect_that_ternary_weights_can_have_is_kept_whole():
    """A pair that is the difference of two ternary matrices arrives but for int8's rounding; half of it, doubled."""
    rng = np.random.default_rng(6)
    before, after = (rng.standard_normal((96, 128), np.float32) for _ in range(2))
    (codes, scale), (new_codes, new_scale) = absmean(before), absmean(after)
    difference = (new_codes * new_scale - codes * scale).astype(np.float32)
    pair = LowRankPair(np.eye(128, dtype=np.float32), difference, 1.0)

    merged, _ = measure("q_proj", before, after, pair)
    twice, _ = measure("q_proj", before, after, LowRankPair(pair.a, pair.b, 0.5))
    nothing, _ = measure("q_proj", before, before, pair)

    assert merged.codes_changed == int((codes != new_codes).sum())
    assert merged.kept == pytest.approx(1, abs=0.01)
    assert merged.error < 0.02
    assert (twice.kept, twice.error) == (pytest.approx(2, abs=0.02), pytest.approx(1, abs=0.02))
    assert (nothing.codes_changed, nothing.kept, nothing.error) == (0, 0, 1)


def test_a_packed_model_has_nothing_to_merge_into(reference_checkpoint, tmp_path):
    """Refused with both ways out, for each kind of model without latent weights."""
    write_adapter(tmp_path / "adapter", size=0.1)
    for name in ("bitnet-packed", "trilm-f16"):
        with pytest.raises(CheckpointError, match="Give the master it was made from") as refused:
            merge(reference_checkpoint(name), tmp_path / "adapter", tmp_path / "out")
        assert "edgebit adapter convert" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_base_is_refused(reference_checkpoint, tmp_path):
    """By shapes, and by the sums of the files it was trained on, which --another-base passes over."""
    master = reference_checkpoint("bitnet-bf16")
    write_adapter(tmp_path / "narrow", size=0.1, pairs={(0, Role.Q_PROJ): (64, 64)})
    with pytest.raises(CheckpointError, match="trained on another base"):
        merge(master, tmp_path / "narrow", tmp_path / "out")
    write_adapter(tmp_path / "other", size=0.1, base=("00" * 32,))
    with pytest.raises(CheckpointError, match="give --another-base"):
        merge(master, tmp_path / "other", tmp_path / "out")
    merge(master, tmp_path / "other", tmp_path / "out", another_base=True)
    write_adapter(tmp_path / "same", size=0.1, base=(hash_file(master / "model.safetensors").sha256,))
    merge(master, tmp_path / "same", tmp_path / "out2")


def test_weights_that_overflow_are_refused(reference_checkpoint, tmp_path):
    write_adapter(tmp_path / "adapter", size=3e38)
    with pytest.raises(CheckpointError, match="not finite in bfloat16: lower lora_alpha"):
        merge(reference_checkpoint("bitnet-bf16"), tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_tells_what_is_left(reference_checkpoint, tmp_path):
    """In words and as JSON; a folder that is there stays without --force."""
    write_adapter(tmp_path / "adapter", size=1e-6)
    arguments = [reference_checkpoint("bitnet-bf16"), tmp_path / "adapter", "--out", tmp_path / "out"]

    def run(*more: str):
        return CliRunner().invoke(cli, ["merge", *map(str, arguments), *more])

    done = run()
    assert done.exit_code == 0, done.output
    assert "rounding loses the adapter" in done.output
    assert "model.layers.2.mlp.down_proj" in done.output
    assert isinstance(run().exception, ExportError)
    told = json.loads(run("--force", "--json").output)
    assert (told["verdict"], len(told["projections"])) == ("lost", 2)


@pytest.mark.reference
def test_data_tell_what_is_left(native, reference_checkpoint, tmp_path):
    """The losses are those of the master, of it with the pair beside it, and of what was written."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    master, data = reference_checkpoint("bitnet-bf16"), tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"input": f"lamp {n}", "output": f"on {n}"}) + "\n" for n in range(6)))
    write_adapter(tmp_path / "adapter", size=1)

    def losses(model, adapter):
        arguments = [model, adapter, "--eval", data, "--out", tmp_path / f"of-{model.name}", "--json"]
        done = CliRunner().invoke(cli, ["merge", *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return {name: found["loss"] for name, found in json.loads(done.stdout)["held_out"].items()}

    found = losses(master, tmp_path / "adapter")
    assert len(set(found.values())) == 3

    write_adapter(tmp_path / "nothing", size=0)
    again = losses(tmp_path / "of-bitnet-bf16", tmp_path / "nothing")
    told = [master, tmp_path / "nothing", "--eval", data, "--out", tmp_path / "of-bitnet-bf16", "--force"]
    assert f"loss     master alone {found['master']:.4f}" in CliRunner().invoke(cli, ["merge", *map(str, told)]).stdout
    assert again["master"] == again["beside"] == again["merged"] == pytest.approx(found["merged"], rel=1e-4)


@pytest.mark.reference
def test_out_is_looked_at_before_anything_is_evaluated(native, reference_checkpoint, tmp_path, monkeypatch):
    """A folder that edgebit did not write is not found out after minutes."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").touch()
    (tmp_path / "data.jsonl").write_text('{"input": "lamp", "output": "on"}\n')
    write_adapter(tmp_path / "adapter", size=1)
    monkeypatch.setattr("edgebit.train.lora.merge_evaluation.evaluate_beside", None)
    arguments = [tmp_path / "adapter", "--eval", tmp_path / "data.jsonl", "--out", tmp_path / "theirs", "--force"]

    done = CliRunner().invoke(cli, ["merge", str(reference_checkpoint("bitnet-bf16")), *map(str, arguments)])

    assert isinstance(done.exception, ExportError), done.exception
