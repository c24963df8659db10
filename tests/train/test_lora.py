"""LoRA beside peft itself: one adapter, two programs, the same logits; and a training that resumes exactly."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgebit.adapters import convert_adapter
from edgebit.checkpoint.hugging_face.lora_config import LoraConfig
from edgebit.checkpoint.hugging_face.peft_folder import module_name, read_peft_folder
from edgebit.cli import cli
from edgebit.errors import CheckpointError, TrainError
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.train.lora.targets import target_roles

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("native")]  # which cuts texts into tokens

IDS = np.random.default_rng(2).integers(0, 500, (12, 6))  # short rows: where one rounding flips, its row differs


def logits_of(decoder) -> np.ndarray:
    ids = torch.from_numpy(IDS)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.inference_mode():
        return decoder(ids, positions, torch.ones_like(ids)).numpy()


def with_adapter(folder, config):
    """A base with an adapter whose pairs are random, so that it does something."""
    from edgebit.train.lora.adapter import add_lora, lora_layers
    from edgebit.train.lora.base import open_base

    decoder, sums = open_base(folder)
    torch.manual_seed(4)
    add_lora(decoder, config)
    generator = torch.Generator().manual_seed(5)
    for _, layer in lora_layers(decoder):
        layer.lora_B.weight.data.normal_(0, 0.2, generator=generator)
    decoder.eval()
    return decoder, sums


def transformers_model(folder):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(torch.float32).eval()


def logits_of_peft(model) -> np.ndarray:
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        return model(torch.from_numpy(IDS)).logits.numpy()


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """To 1e-5 of logits of deviation 3, but where an activation between two int8 steps was rounded the other way."""
    differences = np.abs(ours - theirs).max(axis=-1)
    assert (differences < 1e-5).mean() > 0.6, differences
    assert np.median(differences) < 1e-5
    assert differences.max() < 0.3


def assert_same_projections(decoder, model, names) -> None:
    """Of one input, which both round alike: to float32's last digits."""
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)).repeat(1, 74)
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        for name in names:
            ours, theirs = decoder.get_submodule(name), model.get_submodule(f"base_model.model.{name}")
            inputs = x[:, : ours.lora_A.in_features]
            assert torch.allclose(ours(inputs), theirs(inputs), rtol=1e-5, atol=1e-5), name


@pytest.mark.parametrize("base", ["bitnet-bf16", "bitnet-packed"])
@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
def test_peft_computes_the_same_from_our_folder(base, rslora, reference_checkpoint, tmp_path):
    """On a master and on a packed base; and not what the base computes alone."""
    peft = pytest.importorskip("peft")
    from edgebit.train.lora.adapter import adapter_of, lora_layers, save_adapter

    config = LoraConfig(rank=4, alpha=6, target_modules=("all-linear",), use_rslora=rslora)
    decoder, sums = with_adapter(reference_checkpoint(base), config)
    save_adapter(tmp_path / "adapter", adapter_of(decoder, config, sums))

    model = peft.PeftModel.from_pretrained(transformers_model(reference_checkpoint(base)), tmp_path / "adapter").eval()

    ours, theirs = logits_of(decoder), logits_of_peft(model)
    assert_same(ours, theirs)
    assert_same_projections(decoder, model, [module_name(place) for place, _ in lora_layers(decoder)])
    with model.disable_adapter():
        assert np.abs(logits_of_peft(model) - theirs).max() > 0.5


def test_we_compute_the_same_from_pefts_folder(reference_checkpoint, tmp_path):
    """With ranks and alphas by module, in some layers alone."""
    peft = pytest.importorskip("peft")
    from edgebit.train.lora.adapter import load_adapter
    from edgebit.train.lora.base import open_base

    base = reference_checkpoint("bitnet-bf16")
    theirs = peft.get_peft_model(
        transformers_model(base),
        peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=["q_proj", "o_proj", "down_proj"], layers_to_transform=[0, 2],
            rank_pattern={"down_proj": 2}, alpha_pattern={"model.layers.2.self_attn.o_proj": 3}, task_type="CAUSAL_LM",
        ),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(6)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.2, generator=generator)
    theirs.eval().save_pretrained(tmp_path / "adapter")

    adapter = read_peft_folder(tmp_path / "adapter")
    decoder, _ = open_base(base)
    load_adapter(decoder, adapter)
    decoder.eval()

    assert len(adapter.pairs) == 6
    assert_same(logits_of(decoder), logits_of_peft(theirs))
    assert_same_projections(decoder, theirs, map(module_name, adapter.pairs))


def test_the_engine_computes_what_peft_computes(native, reference_checkpoint, reference_model, tmp_path):
    """The same folder, converted: the best token, and logits beside an effect that is many times the difference."""
    peft = pytest.importorskip("peft")
    from edgebit.train.lora.adapter import adapter_of, save_adapter

    base = reference_checkpoint("bitnet-packed")
    config = LoraConfig(rank=8, alpha=32, target_modules=("all-linear",))
    decoder, sums = with_adapter(base, config)
    save_adapter(tmp_path / "peft", adapter_of(decoder, config, sums))
    model = peft.PeftModel.from_pretrained(transformers_model(base), tmp_path / "peft").eval()
    theirs = logits_of_peft(model)[:, -1]
    with model.disable_adapter():
        alone = logits_of_peft(model)[:, -1]

    convert_adapter(tmp_path / "peft", reference_model("bitnet-packed"), tmp_path / "a.adapter")
    with Model.open(native, reference_model("bitnet-packed")) as opened, Engine(opened, ctx_len=8) as engine:
        adapter = Adapter.open(native, opened, (tmp_path / "a.adapter").read_bytes())
        ours, ours_alone = (last_logits(engine, each) for each in (adapter, None))
        adapter.close()

    difference, without = mean_distance(ours, theirs), mean_distance(ours_alone, alone)
    assert difference < 2 * without  # of the int8 head, the KV cache in f16, activations rounded the other way
    assert mean_distance(alone, theirs) > 5 * difference
    assert (ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum() >= len(IDS) - 2


def last_logits(engine: Engine, adapter: Adapter | None) -> np.ndarray:
    """Of each row of IDS, with an adapter or alone, [rows, vocabulary]."""
    found = []
    for ids in IDS:
        engine.truncate()
        engine.set_adapter(0, adapter)
        engine.eval(ids.tolist())
        found.append(np.array(engine.logits()))
    engine.truncate()
    engine.set_adapter(0, None)
    return np.array(found)


def mean_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


def write_data(path, words, count=40):
    lines = [{"input": f"{words[i % len(words)]} {i}", "output": f"done {i % 3}"} for i in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def train(*arguments: object):
    fixed = ["--row-length", "64", "--batch-tokens", "256", "--threads", "1", "--no-compile", "--json"]
    return CliRunner().invoke(cli, ["train", *map(str, arguments), *fixed])


def test_a_training_learns_and_goes_on_at_the_exact_step(reference_checkpoint, tmp_path):
    """Broken after 6 of 12 steps and resumed, with dropout and rehearsal: the same pairs, bit for bit."""
    base, new = reference_checkpoint("bitnet-packed"), write_data(tmp_path / "new.jsonl", ["open", "close"])
    old = write_data(tmp_path / "old.jsonl", ["dim", "heat"])
    options = [new, "--from", base, "--lora", 4, "--lora-dropout", 0.1, "--replay", old, "--replay-share", 0.25,
               "--eval-share", 0.2, "--learning-rate", 5e-3, "--save-every", 6]  # fmt: skip

    whole = train(*options, "--steps", 12, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    broken = train(*options, "--steps", 12, "--out", tmp_path / "broken")
    assert broken.exit_code == 0, broken.output
    (tmp_path / "broken" / "training-state" / "step-00000012.state").unlink()
    for name in ("adapter_model.safetensors", "loss.jsonl"):
        (tmp_path / "broken" / name).unlink()
    resumed = train(*options, "--steps", 12, "--out", tmp_path / "broken", "--resume")
    assert resumed.exit_code == 0, resumed.output

    for name in ("adapter_model.safetensors", "loss.jsonl"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "loss.jsonl").read_text().splitlines()]
    assert min(losses[6:]) < losses[0] - 1
    told = json.loads(whole.stdout)
    adapter = read_peft_folder(tmp_path / "whole")
    assert told["parameters"] == sum(pair.a.size + pair.b.size for pair in adapter.pairs.values())
    assert told["rehearsed"]["loss"] < told["rehearsed"]["loss_before"]
    state = (tmp_path / "whole" / "training-state" / "step-00000012.state").stat().st_size
    assert state < 40 * told["parameters"]  # pairs and their two moments: no base


@pytest.mark.parametrize(
    ("options", "promised"),
    [
        (["--lora", "0"], "rank 0: a side path needs"),
        (["--lora", "4", "--lora-alpha", "0"], "alpha 0: more than 0"),
        (["--lora", "4", "--lora-targets", "q_proj,wq"], "there is no projection 'wq'. Known are q_proj, k_proj"),
        (["--lora", "4", "--lora-targets", "lm_head"], "neither embedding nor head"),
        (["--lora-alpha", "4"], "go with --lora RANK"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, promised, reference_checkpoint, tmp_path):
    """With what there is; nothing is left behind."""
    data = write_data(tmp_path / "new.jsonl", ["open"])
    done = train(data, "--from", reference_checkpoint("bitnet-bf16"), "--out", tmp_path / "out", *options)
    assert done.exit_code != 0
    assert promised in (done.stderr if done.exit_code == 2 else str(done.exception))
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_only_a_bitnet_is_a_base(reference_checkpoint, tmp_path):
    """Models without sub-norms, and those without int8 activations, are refused with the way that peft is."""
    from edgebit.train.lora.base import open_base

    with pytest.raises(TrainError, match="is not trained on: the norms differ in attn_sub_norm, ffn_sub_norm"):
        open_base(reference_checkpoint("falcon3-packed"))
    with pytest.raises(TrainError, match="edgebit adapter convert"):
        open_base(reference_checkpoint("trilm-f16"))
    with pytest.raises(CheckpointError):
        open_base(tmp_path)


def test_targets_are_pefts():
    assert [role.name for role in target_roles(("down_proj", "q_proj"))] == ["Q_PROJ", "DOWN_PROJ"]
    assert len(target_roles(("all-linear",))) == 7
