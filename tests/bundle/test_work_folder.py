"""A work folder is gone at the end; what a killed process left is cleared by the next, and nothing else is."""

import subprocess
import sys

import pytest

from edgebit.bundle.work_folder import work_folder

_KILLED = """
import os, signal, sys
from pathlib import Path
from edgebit.bundle.work_folder import work_folder

with work_folder(Path(sys.argv[1])) as folder:
    (folder / "model.ebm").write_bytes(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "chat.bundle"


def test_it_is_beside_hidden_and_gone_at_the_end(out):
    with pytest.raises(KeyError), work_folder(out) as folder:
        (folder / "file").write_bytes(b"x")
        assert folder.parent == out.parent
        assert folder.name.startswith(".chat.bundle.")
        raise KeyError

    assert not list(out.parent.iterdir())


def test_what_a_killed_process_left_is_cleared(out):
    subprocess.run([sys.executable, "-c", _KILLED, out], check=False)
    (left,) = out.parent.iterdir()
    assert (left / "model.ebm").is_file()
    with work_folder(out) as folder:
        assert list(out.parent.iterdir()) == [folder]


def test_a_leftover_that_is_kept_goes_when_the_block_has_ended_well(out):
    subprocess.run([sys.executable, "-c", _KILLED, out], check=False)
    (left,) = out.parent.iterdir()
    with pytest.raises(KeyError), work_folder(out, is_kept=lambda leftover: (leftover / "model.ebm").exists()):
        raise KeyError
    assert list(out.parent.iterdir()) == [left] and (left / "model.ebm").read_bytes() == b"half of it"
    with work_folder(out, is_kept=lambda leftover: (leftover / "model.ebm").exists()):
        assert left.is_dir()
    assert not list(out.parent.iterdir())


def test_what_was_killed_before_it_was_marked_goes_while_it_is_empty(out):
    (out.parent / ".chat.bundle.abcdefgh").mkdir()
    with work_folder(out) as folder:
        assert list(out.parent.iterdir()) == [folder]


def test_a_folder_that_is_worked_in_stays(out):
    with work_folder(out) as first, work_folder(out) as second:
        assert first != second
        assert first.is_dir()
        assert second.is_dir()


def test_nothing_else_is_cleared(out):
    """Of other outputs, of other names, links, files; and folders of the name without our mark."""
    (out.parent / ".chat.bundle.original").mkdir()
    (out.parent / ".chat.bundle.original" / "kept").write_bytes(b"x")
    names = [".chat.bundle.old", ".chat.bundle.abcdefgh.x", "chat.bundle.abcdefgh", ".chat-bundle.abcdefgh"]
    for name in names:
        (out.parent / name).mkdir()
    (out.parent / ".chat.bundle.abcdefg_").write_bytes(b"a file")
    (out.parent / ".chat.bundle.abcdefgl").symlink_to(".chat.bundle.old")
    before = sorted(out.parent.iterdir())
    with work_folder(out):
        pass

    assert sorted(out.parent.iterdir()) == before
    assert (out.parent / ".chat.bundle.original" / "kept").is_file()


def test_a_place_without_folders_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), work_folder(tmp_path / "none" / "out"):
        pass
