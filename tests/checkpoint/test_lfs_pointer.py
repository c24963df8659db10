"""A clone without its large files: each pointer is called one, with the command that fetches the file."""

import shutil

import pytest

from edgebit.cli import main
from edgebit.convert import convert
from edgebit.errors import EdgebitError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NAMES = ["model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json", "tokenizer.model"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pointer_among_a_checkpoints_files(name, reference_checkpoint, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    instead = {"pytorch_model.bin": "model.safetensors", "tokenizer.model": "tokenizer.json"}
    (folder / instead.get(name, name)).unlink()
    (folder / name).write_bytes(POINTER)

    with pytest.raises(EdgebitError, match=rf"{name}: .*is a Git LFS pointer, not the file itself: run `git lfs pull`"):
        convert(folder, tmp_path / "m.ebm", probes=False)


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "model"])
def test_a_pointer_alone(name, tmp_path):
    (tmp_path / name).write_bytes(POINTER)

    with pytest.raises(EdgebitError, match=rf"{name}: is a Git LFS pointer"):
        convert(tmp_path / name, tmp_path / "m.ebm", probes=False)


@pytest.mark.parametrize("command", ["inspect", "verify", "run"])
@pytest.mark.parametrize("name", ["chat.ebm", "chat.bundle"])
def test_a_pointer_in_the_place_of_a_model_file_or_bundle(command, name, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(POINTER)

    with pytest.raises(SystemExit) as ended:
        main([command, str(path)] + (["--json"] if command == "verify" else ["hello"] * (command == "run")))

    said = capsys.readouterr()
    assert ended.value.code == 3
    assert f"{path} is a Git LFS pointer" in said.out + said.err
