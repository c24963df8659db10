"""`edgebit train` as it is called: from data to a master, stopped and gone on with; and what it refuses."""

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgebit.cli import cli
from edgebit.errors import SchemaError, TrainError
from edgebit.train import requirements

SIZES = ["--hidden-size", "32", "--layers", "2", "--heads", "4", "--kv-heads", "2", "--ffn-size", "64",
         "--context", "96", "--vocab", "280", "--row-length", "96", "--batch-tokens", "384", "--no-compile",
         "--threads", "1", "--eval-share", "0.1"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """120 commands and what they mean."""
    generator = random.Random(1)
    path = tmp_path_factory.mktemp("data") / "commands.jsonl"
    names = ["lamp", "fan", "heater", "blind"]
    records = [(generator.choice(names), generator.randrange(100)) for _ in range(120)]
    lines = [json.dumps({"input": f"set the {name} to {n}", "output": f"{name}={n}"}) for name, n in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def invoke(*arguments, **given):
    return CliRunner().invoke(cli, ["train", *map(str, arguments)], **given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "5", "--epochs", "1"], "say the same"),
        (["--from", ".", "--layers", "3"], "--layers is the master's own"),
        (["--from", ".", "--float"], "--float is the master's own"),
        (["--row-length", "512", "--batch-tokens", "256"], "holds no row of 512"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, said, data, tmp_path):
    """Before anything is read."""
    done = invoke(data, "--out", tmp_path / "out", *options)

    assert done.exit_code == 2
    assert said in done.output


def test_without_pytorch_the_extra_is_named(monkeypatch, data, tmp_path):
    """And nothing is written."""
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    done = invoke(data, "--out", tmp_path / "out")

    assert isinstance(done.exception, TrainError)
    assert "pip install 'edgebit[train]'" in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A folder with a master, and what the command printed."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    out = tmp_path_factory.mktemp("trained") / "model"
    done = invoke(data, "--out", out, *SIZES, "--steps", 12, "--save-every", 5, "--eval-every", 6, "--json")
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout)


@pytest.mark.reference
def test_a_master_comes_out_with_its_curve(trained):
    """Every file that the docs name; figures that go together."""
    out, facts = trained

    assert {path.name for path in out.iterdir()} >= {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "README.md", "loss.jsonl", "loss.svg", "training-state",
    }  # fmt: skip
    records = [json.loads(line) for line in (out / "loss.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 13))
    assert [record["step"] for record in records if "held_out_loss" in record] == [6, 12]
    assert records[-1]["loss"] == facts["loss"] < records[0]["loss"]
    assert facts["held_out"]["loss"] == pytest.approx(records[-1]["held_out_loss"], rel=0.05)
    assert "held out" in (out / "loss.svg").read_text()
    generation = json.loads((out / "generation_config.json").read_text())
    tokens = json.loads((out / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert {tokens[str(token)]["content"] for token in generation["eos_token_id"]} == {"<|end_of_text|>", "<|eot_id|>"}


@pytest.mark.reference
def test_the_master_converts_and_answers(trained, tmp_path):
    """With the chat template it was trained with."""
    out, _ = trained
    model = tmp_path / "model.ebm"
    assert CliRunner().invoke(cli, ["convert", str(out), "--out", str(model)]).exit_code == 0

    done = CliRunner().invoke(cli, ["run", str(model), "set the fan to 7", "--max-tokens", "4"])
    assert done.exit_code == 0, done.output


@pytest.mark.reference
def test_a_folder_that_is_there_is_not_trained_over(trained, data):
    """Nor gone on from with other settings; a training that has ended may be gone on from, and stays."""
    out, facts = trained
    for options, said in (
        ([], "--resume to go on"),
        (["--resume", "--seed", 2], "begun with --seed 1, and now it is with --seed 2"),
        (["--resume", "--batch-tokens", 192], "with --batch-tokens 384, and now it is with --batch-tokens 192"),
        (["--resume", "--steps", 13], "begun with --steps 12, and now it is with --steps 13"),
    ):
        refused = invoke(data, "--out", out, *SIZES, "--steps", 12, *options)
        assert isinstance(refused.exception, TrainError)
        assert said in str(refused.exception)

    again = invoke(data, "--out", out, *SIZES, "--steps", 12, "--resume", "--json")
    assert json.loads(again.stdout) == facts


@pytest.mark.reference
def test_nothing_to_go_on_from_is_said(data, tmp_path):
    """With the option to leave out."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    refused = invoke(data, "--out", tmp_path / "out", *SIZES, "--resume")

    assert "Leave --resume out" in str(refused.exception)


@pytest.mark.reference
def test_a_master_is_trained_on_from(trained, data, tmp_path):
    """With its tokenizer and sizes; it stays as it is."""
    out, _ = trained
    before = (out / "model.safetensors").read_bytes()
    options = ["--row-length", "96", "--batch-tokens", "384", "--no-compile", "--threads", "1", "--steps", "4"]
    done = invoke(data, "--from", out, "--out", tmp_path / "better", *options, "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["loss"] < json.loads((out / "loss.jsonl").read_text().splitlines()[0])["loss"]
    for name in ("tokenizer.json", "config.json"):
        assert (tmp_path / "better" / name).read_bytes() == (out / name).read_bytes()
    assert (out / "model.safetensors").read_bytes() == before


@pytest.fixture
def master(trained, tmp_path):
    """A copy of the master, whose answers follow a schema."""
    folder = tmp_path / "master"
    shutil.copytree(trained[0], folder, ignore=shutil.ignore_patterns("training-state"))
    (folder / "response_schema.json").write_text('{"enum": ["lamp", "fan"]}\n')
    return folder


FEW_STEPS = [*SIZES[SIZES.index("--row-length") :], "--steps", "2"]


@pytest.mark.reference
def test_the_response_schema_of_a_master_goes_along(master, data, tmp_path):
    """As it is, and the command says so."""
    done = invoke(data, "--from", master, "--out", tmp_path / "better", *FEW_STEPS)

    assert done.exit_code == 0, done.output
    assert "response_schema.json of the master, taken over" in done.stdout
    assert "begun with the weights of the master master." in (tmp_path / "better" / "README.md").read_text()
    assert (tmp_path / "better" / "response_schema.json").read_text() == '{"enum": ["lamp", "fan"]}\n'


@pytest.mark.reference
def test_a_master_that_was_moved_is_known_again_and_one_that_was_changed_is_not(master, data, tmp_path):
    """By the content of its weights, not by its place."""
    options = ["--out", tmp_path / "better", *FEW_STEPS]
    assert invoke(data, "--from", master, *options).exit_code == 0
    moved = master.rename(tmp_path / "elsewhere")
    (tmp_path / "better" / "model.safetensors").unlink()
    done = invoke(data, "--from", moved, *options, "--resume")
    assert done.exit_code == 0, done.output

    content = bytearray((moved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (moved / "model.safetensors").write_bytes(content)
    refused = invoke(data, "--from", moved, *options, "--resume")
    assert isinstance(refused.exception, TrainError)
    assert "the model of --from has other weights" in str(refused.exception)


@pytest.mark.reference
def test_a_response_schema_that_answers_cannot_be_held_to_is_refused_before_the_training(master, data, tmp_path):
    """Naming the file: nothing could be built of what would come out."""
    (master / "response_schema.json").write_text('{"type": "string", "pattern": "a+"}')
    refused = invoke(data, "--from", master, "--out", tmp_path / "better", *FEW_STEPS)

    assert isinstance(refused.exception, SchemaError)
    assert f"{master / 'response_schema.json'}: " in str(refused.exception)
    assert not list((tmp_path / "better").iterdir())


@pytest.mark.reference
def test_ctrl_c_saves_and_says_how_to_go_on(trained, data, tmp_path):
    """And what it comes to then is what comes of a training that nobody stopped."""
    out, _ = trained
    options = [str(data), "--out", str(tmp_path / "out"), *SIZES, "--steps", "12", "--save-every", "5"]
    command = [sys.executable, "-m", "edgebit", "train", *options, "--eval-every", "6"]
    slow = "import time, edgebit.cli, edgebit.train.trainer as t\n" \
           "step = t._Run.step\n" \
           "t._Run.step = lambda run: (time.sleep(0.2), step(run))[1]\n" \
           "edgebit.cli.main()"  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *command[3:]], stderr=subprocess.PIPE, text=True, stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    said = ""
    while "training: step 1" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)

    assert process.returncode == 130
    assert "saved. Go on with the same command and --resume" in rest
    assert not (tmp_path / "out" / "model.safetensors").exists()
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert (tmp_path / "out" / "loss.jsonl").read_bytes() == (out / "loss.jsonl").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert Path(tmp_path / "out" / "loss.svg").is_file()


@pytest.mark.reference
@pytest.mark.parametrize("name", ["README.md", "config.json", "adapter_config.json"])
def test_what_lies_in_the_folder_is_not_written_over(name, data, tmp_path):
    """Whatever it is; only a tokenizer without a training is what one that never began has left."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / name).write_text("mine")
    refused = invoke(data, "--out", tmp_path, *SIZES)

    assert isinstance(refused.exception, TrainError)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.reference
def test_a_gpu_that_is_not_there_is_said(data, tmp_path):
    """Before anything is read."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    refused = invoke(data, "--out", tmp_path / "out", *SIZES, "--device", "cuda")

    assert isinstance(refused.exception, TrainError)
    assert "finds no GPU" in str(refused.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.reference
def test_rows_longer_than_the_context_are_refused(data, tmp_path):
    """With both ways out."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    refused = invoke(data, "--out", tmp_path / "out", *SIZES, "--context", 64)

    assert isinstance(refused.exception, TrainError)
    assert "--row-length 64" in str(refused.exception)


def test_a_dry_run_refuses_what_cannot_be_trained_on(data, tmp_path, native, reference_checkpoint):
    """A packed checkpoint, without PyTorch."""
    packed = reference_checkpoint("bitnet-packed")
    done = invoke(data, "--out", tmp_path / "out", "--from", packed, "--dry-run")

    assert isinstance(done.exception, TrainError) and "a packed checkpoint" in str(done.exception)


def test_a_dry_run_writes_nothing(data, tmp_path, native):
    """It needs no PyTorch, and says what the data hold."""
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    done = invoke(data, "--out", tmp_path / "out", "--vocab", 280, "--dry-run", "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["examples"] == 120
    assert not (tmp_path / "out").exists()
