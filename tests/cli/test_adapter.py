"""`edgebit adapter`, and `run --adapter`: from a folder of peft's to another answer."""

import json
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner

from edgebit import resources
from edgebit.bundle.adapter_format import read_adapter_file
from edgebit.bundle.model_format import Encoding, Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.hugging_face.lora_config import LoraConfig
from edgebit.checkpoint.hugging_face.peft_folder import LowRankPair, PeftAdapter, write_peft_folder
from edgebit.cli import cli
from edgebit.convert import convert
from edgebit.errors import BundleError, CheckpointError, OutputError

RANK = 16


def edgebit(*arguments):
    return CliRunner().invoke(cli, [*map(str, arguments)])


@pytest.fixture
def model(reference_model):
    return reference_model("bitnet-packed")


@pytest.fixture
def lora(model, tmp_path):
    """A folder of peft's for bitnet-packed, strong enough to change any answer."""
    with ModelFile(model) as file:
        conf = file.conf
    random = np.random.default_rng(2)
    pairs = {}
    for layer in range(conf.n_layers):
        for role in (Role.Q_PROJ, Role.UP_PROJ):
            rows, columns = conf.shape_of(role)
            a, b = random.standard_normal((RANK, columns)), random.standard_normal((rows, RANK))
            pairs[layer, role] = LowRankPair(a.astype("<f4"), b.astype("<f4"), 2.0)
    (tmp_path / "lora").mkdir()
    config = LoraConfig(rank=RANK, alpha=32, target_modules=("q_proj", "up_proj"))
    write_peft_folder(tmp_path / "lora", PeftAdapter(config, pairs))
    return tmp_path / "lora"


def test_an_adapter_is_converted_shown_and_run(lora, model, tmp_path):
    """The name is the file's; inspect tells ranks and scales; the answer is another one, and the same each time."""
    out = tmp_path / "garden.adapter"
    done = edgebit("adapter", "convert", lora, "--for", model, "--out", out)
    assert done.exit_code == 0, done.output
    assert "garden" in done.output

    facts = json.loads(edgebit("adapter", "inspect", out, "--json").stdout)
    assert facts["name"] == "garden"
    assert {(pair["rank"], pair["scale"], pair["type"]) for pair in facts["pairs"]} == {(RANK, 2.0, "f16")}
    assert {pair["projection"] for pair in facts["pairs"]} == {"q_proj", "up_proj"}
    assert "garden" in edgebit("adapter", "inspect", out).output

    run = ("run", model, "hello", "-n", 8, "--temperature", 0, "--json")
    plain, first, second = (
        json.loads(edgebit(*run, *more).stdout)["tokens"] for more in ((), ("--adapter", out), ("--adapter", out))
    )
    assert plain != first == second


def test_edgebit_run_gives_the_tokens_of_edgebit_run(lora, model, tmp_path):
    """The program for devices without Python, with the same file."""
    program = resources.native_library().parent / "edgebit-run"
    if not program.is_file():
        pytest.skip("edgebit-run is not built")
    out = tmp_path / "garden.adapter"
    assert edgebit("adapter", "convert", lora, "--for", model, "--out", out).exit_code == 0
    answer = json.loads(
        edgebit("run", model, "x", "--raw", "-n", 8, "--temperature", 0, "--adapter", out, "--json").stdout
    )
    done = subprocess.run(
        [str(program), str(model), "-p", "x", "-n", "8", "--adapter", str(out)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.rstrip("\n") == answer["text"]


def test_the_file_for_a_checkpoint_is_that_for_its_model_file(lora, model, reference_checkpoint, tmp_path):
    """In another layout too: the weights are what it is for."""
    convert(reference_checkpoint("bitnet-packed"), tmp_path / "t1.ebm", layout="t1", probes=False)
    files = []
    for number, base in enumerate((model, reference_checkpoint("bitnet-packed"), tmp_path / "t1.ebm")):
        out = tmp_path / f"{number}.adapter"
        done = edgebit("adapter", "convert", lora, "--for", base, "--out", out, "--name", "one")
        assert done.exit_code == 0, done.output
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]


def test_int8_takes_about_half_the_bytes(lora, model, tmp_path):
    """And the report says what rounding changes."""
    reports = {}
    for encoding in ("f16", "int8"):
        out = tmp_path / f"{encoding}.adapter"
        done = edgebit("adapter", "convert", lora, "--for", model, "--out", out, "--type", encoding, "--json")
        reports[encoding] = json.loads(done.stdout)
    assert reports["int8"]["bytes"] < 0.7 * reports["f16"]["bytes"]
    assert reports["f16"]["rounding_error"] < 1e-3 < reports["int8"]["rounding_error"] < 0.03
    assert {pair.encoding for pair in read_adapter_file(tmp_path / "int8.adapter").pairs} == {Encoding.I8}


def test_another_model_is_refused(lora, model, reference_model, tmp_path):
    """At the conversion where shapes tell, and at the run whatever tells."""
    other = reference_model("falcon3-packed")
    done = edgebit("adapter", "convert", lora, "--for", other, "--out", tmp_path / "x.adapter")
    assert isinstance(done.exception, CheckpointError)
    assert not (tmp_path / "x.adapter").exists()
    assert edgebit("adapter", "convert", lora, "--for", model, "--out", tmp_path / "x.adapter").exit_code == 0
    done = edgebit("run", other, "hello", "-n", 1, "--adapter", tmp_path / "x.adapter")
    assert isinstance(done.exception, BundleError)
    assert "made for other weights" in str(done.exception)


def test_what_is_there_is_not_replaced(lora, model, tmp_path):
    """Without --force; and a name that no request could hold is refused before anything is read."""
    out = tmp_path / "x.adapter"
    out.write_bytes(b"mine")
    done = edgebit("adapter", "convert", lora, "--for", model, "--out", out)
    assert isinstance(done.exception, OutputError)
    assert out.read_bytes() == b"mine"
    done = edgebit("adapter", "convert", lora, "--for", model, "--out", tmp_path / "y.adapter", "--name", "a/b")
    assert isinstance(done.exception, BundleError)
    assert "cannot be called 'a/b'" in str(done.exception)


def test_a_file_that_is_no_adapter_is_refused(model, tmp_path):
    """By both commands, with what makes one."""
    (tmp_path / "x").write_bytes(b"no adapter" * 20)
    for command in (("adapter", "inspect", tmp_path / "x"), ("run", model, "a", "--adapter", tmp_path / "x")):
        done = edgebit(*command)
        assert isinstance(done.exception, BundleError)
        assert "adapter file" in str(done.exception)
