"""Folders of `edgebit export onnx` where a model is wanted: each command says what it is, and which ones take it."""

import shutil

import pytest
from click.testing import CliRunner

from edgebit.cli import cli
from edgebit.errors import EdgebitError

COMMANDS = [
    (["convert", "{}", "--out", "out.ebm"], 4),
    (["build", "{}", "--target", "linux-x86_64", "--out", "out.bundle"], 4),
    (["export", "onnx", "{}", "--out", "out"], 4),
    (["export", "gguf", "{}", "--out", "out.gguf"], 4),
    (["export", "hf", "{}", "--out", "out"], 4),
    (["diff", "{}", "{}"], 4),
    (["logits", "{}", "--ids-file", "ids.json", "--out", "out.npy"], 4),
    (["plan", "{}"], 4),
    (["inspect", "{}"], 3),
    (["eval", "perplexity", "{}"], 3),
    (["bench", "{}"], 3),
]


@pytest.fixture(scope="module")
def folder(hand_made):
    return hand_made()


@pytest.mark.parametrize(("command", "exit_code"), COMMANDS, ids=lambda each: each[0] if isinstance(each, list) else "")
def test_an_exported_folder_is_called_one(folder, command, exit_code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.json").write_text("[1, 2]")
    done = CliRunner().invoke(cli, [word.format(folder) for word in command])
    assert isinstance(done.exception, EdgebitError) and done.exception.exit_code == exit_code, done.output
    assert str(done.exception).startswith(f"{folder} is exported for ONNX Runtime: `edgebit run`")
    assert [path.name for path in tmp_path.iterdir()] == ["ids.json"]


@pytest.mark.parametrize(("command", "exit_code"), [(["convert", "{}", "--out", "out.ebm"], 4), (["inspect", "{}"], 3)])
def test_so_is_its_graph(folder, command, exit_code, tmp_path):
    done = CliRunner().invoke(cli, [word.format(folder / "model.onnx") for word in command])
    assert isinstance(done.exception, EdgebitError) and done.exception.exit_code == exit_code, done.output
    assert "model.onnx is exported for ONNX Runtime" in str(done.exception)


def test_a_checkpoint_with_a_graph_beside_it_is_a_checkpoint(reference_checkpoint, tmp_path):
    """As some on Hugging Face are."""
    checkpoint = shutil.copytree(reference_checkpoint("bitnet-packed"), tmp_path / "checkpoint")
    (checkpoint / "model.onnx").write_bytes(b"of another program")
    done = CliRunner().invoke(cli, ["convert", str(checkpoint), "--out", str(tmp_path / "out.ebm")])
    assert done.exit_code == 0, done.output
