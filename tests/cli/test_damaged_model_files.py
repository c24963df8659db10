"""A damaged model file is found by `edgebit verify`, and nothing is made of it whose sums are right again."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from model_file_sums import set_sums_right

from edgebit.bundle.model_reader import ModelFile
from edgebit.cli import cli
from edgebit.convert import convert
from edgebit.errors import BundleError


def run(*arguments: object):
    return CliRunner().invoke(cli, [*map(str, arguments)])


@pytest.fixture
def flipped(reference_checkpoint, tmp_path, monkeypatch) -> Path:
    """A model file of the checkpoint P, both in the working folder, with one bit of a weight turned over."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "flipped.ebm"
    Path("P").symlink_to(reference_checkpoint("bitnet-packed"))
    convert(Path("P"), path, probes=False)
    with ModelFile(path) as file:
        tensor = next(each for each in file.tensors if each.role.is_projection)
    content = bytearray(path.read_bytes())
    content[tensor.offset] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "flipped.ebm", "--out", "out", "--all-checks"),
        ("export", "gguf", "flipped.ebm", "--out", "out"),
        ("export", "hf", "flipped.ebm", "--out", "out"),
        ("export", "gguf", "P", "--head-from", "flipped.ebm", "--out", "out"),
        ("diff", "P", "flipped.ebm"),
        ("build", "flipped.ebm", "--target", "host", "--out", "out"),
    ],
    ids=" ".join,
)
def test_a_damaged_model_file_gets_no_new_sums(command, flipped):
    done = run(*command)
    assert isinstance(done.exception, BundleError), done.output
    assert "the sum of section DATA is wrong" in str(done.exception)
    assert not (flipped.parent / "out").exists()


def test_verify_takes_a_model_file(native, reference_model):
    """Every byte, and golden probes at each ISA level."""
    done = run("verify", reference_model("bitnet-packed"), "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"]) == (0, True)
    checks = {check["name"]: check["status"] for check in found["checks"]}
    assert checks["every byte"] == checks["golden probes, scalar"] == "passed"
    assert all(check["group"] == "model file" for check in found["checks"])
    done = run("verify", reference_model("bitnet-packed"), "--no-run", "--json")
    assert [check["status"] for check in json.loads(done.stdout)["checks"]] == ["passed", "not run"]
    assert run("verify", reference_model("bitnet-packed"), "--rebuild").exit_code == 2


def test_verify_finds_a_flipped_bit(flipped):
    done = run("verify", flipped)
    assert done.exit_code == BundleError.exit_code
    assert "the sum of section DATA is wrong" in " ".join(done.output.split())


def test_verify_finds_a_probe_that_differs(native, reference_model, tmp_path):
    """Where all sums are right, the engine alone can tell."""
    path = tmp_path / "changed.ebm"
    content = bytearray(reference_model("bitnet-packed").read_bytes())
    with ModelFile(reference_model("bitnet-packed")) as file:
        data = file.sections["DATA"]
        tensor = next(each for each in file.tensors if each.role.is_projection)
    content[tensor.scales_offset + 2] ^= 4
    set_sums_right(content, data)
    path.write_bytes(content)
    done = run("verify", path, "--json")
    checks = {check["name"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert checks["every byte"] == "passed" and checks["golden probes, scalar"] == "failed"
    assert done.exit_code == BundleError.exit_code
