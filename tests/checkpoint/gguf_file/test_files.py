"""A GGUF model is found in a file, in a folder, or in parts."""

import errno
from pathlib import Path
from typing import Any

import pytest
from gguf_files import File

from edgebit.checkpoint.opening import open_checkpoint
from edgebit.errors import CheckpointError
from tests.checkpoint.gguf_file.tiny_model import converted


def test_a_folder_with_one_gguf_file_is_that_file(tiny, tmp_path):
    """With two of them there is a choice to make, and a config.json makes it another checkpoint."""
    folder = tmp_path / "folder"
    folder.mkdir()
    tiny("bitnet").gguf("TQ2_0").write(folder / "m.gguf")

    assert open_checkpoint(folder).format == "gguf"

    (folder / "n.gguf").write_bytes((folder / "m.gguf").read_bytes())
    with pytest.raises(CheckpointError, match=r"2 GGUF files: m\.gguf, n\.gguf"):
        open_checkpoint(folder)


@pytest.fixture
def parts(tiny, tmp_path):
    """A model in three parts, the first without tensors, as gguf-split --no-tensor-first-split writes it."""

    def write(**changes: Any) -> list[Path]:
        whole = tiny("bitnet").gguf("TQ2_0")
        n_tensors = len(whole.tensors)
        names = list(whole.tensors)
        shares: list[list[str]] = [[], names[:5], names[5:]]
        paths = []
        for number, share in enumerate(shares):
            fields = {"split.no": number, "split.count": 3, "split.tensors.count": n_tensors, **changes}
            part = File(fields=whole.fields | fields if number == 0 else fields)
            part.tensors = {name: whole.tensors[name] for name in share}
            paths.append(part.write(tmp_path / f"m-{number + 1:05d}-of-00003.gguf"))
        return paths

    return write


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    """As another user's: a mode would not keep the superuser out."""

    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(CheckpointError, match="the folder cannot be read: Permission denied"):
        open_checkpoint(tmp_path)


def test_a_file_in_parts_is_one_model(parts, tiny, tmp_path):
    """Opened by any part, or by the folder."""
    paths = parts()
    one = tmp_path / "one"
    one.mkdir()
    whole = converted(tiny("bitnet").gguf("TQ2_0").write(one / "m.gguf"), one / "a")

    assert converted(paths[1], one / "b") == whole
    assert open_checkpoint(tmp_path).weight_files() == paths


def test_parts_that_do_not_belong_together_are_refused(parts):
    paths = parts(**{"split.tensors.count": 99})
    with pytest.raises(CheckpointError, match=r"split\.tensors\.count is 99"):
        open_checkpoint(paths[0])

    paths = parts(**{"split.no": 0})
    with pytest.raises(CheckpointError, match=r"00002-of-00003\.gguf: split\.no is 0, not 1"):
        open_checkpoint(paths[0])

    paths[2].unlink()
    with pytest.raises(CheckpointError, match=r"00003-of-00003\.gguf: this part is missing"):
        open_checkpoint(paths[0])
