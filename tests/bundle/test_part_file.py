"""A file is there whole or not at all, and never in the place of a folder, a device or a pipe."""

import os
from pathlib import Path

import pytest

from edgebit.bundle import part_file
from edgebit.bundle.part_file import PartFile, check_place
from edgebit.errors import BuildError, EdgebitError


def test_a_file_appears_whole_and_replaces_the_one_before(tmp_path):
    out = tmp_path / "out"
    out.write_bytes(b"before")
    with PartFile(out, BuildError) as part:
        part.write(b"after")
        assert out.read_bytes() == b"before"
        part.commit()

    assert out.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, OSError], ids=str)
def test_what_is_not_committed_leaves_nothing(tmp_path, end):
    """The error of the block is the one that is met, and the file of before stays."""
    out = tmp_path / "out"
    out.write_bytes(b"before")

    def write() -> None:
        with PartFile(out, BuildError) as part:
            part.write(b"after")
            if end is not None:
                raise end

    if end is None:
        write()
    else:
        with pytest.raises(end):
            write()

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out": b"before"}


@pytest.fixture(params=["pipe", "link to a pipe", "device"])
def no_file(request, tmp_path) -> Path:
    out = tmp_path / "out"
    if request.param == "device":
        return Path("/dev/full")
    os.mkfifo(tmp_path / "pipe")
    if request.param == "pipe":
        return tmp_path / "pipe"
    out.symlink_to("pipe")
    return out


def test_what_is_no_file_is_refused_and_stays(no_file):
    """Even with force, and by the writer itself: rename would put a file there."""
    before = no_file.lstat()
    with pytest.raises(BuildError, match="is no plain file, and would be replaced by one"):
        check_place(no_file, BuildError, force=True, example="x")
    with pytest.raises(BuildError, match="is no plain file"):
        PartFile(no_file, BuildError)

    assert (no_file.lstat().st_mode, no_file.lstat().st_ino) == (before.st_mode, before.st_ino)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "link to nothing"])
def test_what_is_no_part_beside_is_not_written_to(tmp_path, kind):
    part, other = tmp_path / "out.part", tmp_path / "other"
    if kind != "link to nothing":
        other.write_bytes(b"of another")
    if kind == "pipe":
        os.mkfifo(part)
    elif kind == "folder":
        part.mkdir()
    else:
        part.symlink_to("other")
    before = part.lstat()
    with pytest.raises(BuildError, match=r"out\.part is no plain file"):
        check_place(tmp_path / "out", BuildError, force=True, example="x")
    with pytest.raises(BuildError, match=r"out\.part is no plain file"):
        PartFile(tmp_path / "out", BuildError)

    assert (part.lstat().st_mode, part.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert other.exists() == (kind != "link to nothing")
    assert not other.exists() or other.read_bytes() == b"of another"


def test_a_link_that_appears_after_the_look_is_not_followed(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_bytes(b"of another")
    (tmp_path / "out.part").symlink_to("other")
    monkeypatch.setattr(part_file, "check_part", lambda out, error: None)
    with pytest.raises(BuildError, match="cannot be written"):
        PartFile(tmp_path / "out", BuildError)

    assert other.read_bytes() == b"of another"


def test_the_part_of_a_killed_run_is_written_anew(tmp_path):
    out = tmp_path / "out"
    (tmp_path / "out.part").write_bytes(b"a longer beginning")
    check_place(out, BuildError, force=False, example="x", inputs=[tmp_path / "none"])
    with PartFile(out, BuildError) as part:
        part.write(b"whole")
        part.commit()

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out": b"whole"}


@pytest.mark.parametrize("name", ["out.part", "link", "hard"])
def test_the_part_is_none_of_what_is_read(tmp_path, name):
    part = tmp_path / "out.part"
    part.write_bytes(b"read")
    (tmp_path / "link").symlink_to("out.part")
    (tmp_path / "hard").hardlink_to(part)
    with pytest.raises(BuildError, match=r"out\.part is read, and would be lost.* Give another name than .*out$"):
        check_place(tmp_path / "out", BuildError, force=True, example="x", inputs=[tmp_path / name])


@pytest.mark.parametrize(
    ("name", "promised"),
    [
        ("", "is a folder. Give a file name: --out"),
        ("there", "is there already. Give another name, or --force"),
        ("none/out", "mkdir -p"),
        ("there/out", "mkdir -p"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_where_no_file_can_be_is_said(tmp_path, name, promised):
    (tmp_path / "there").write_bytes(b"")
    with pytest.raises(EdgebitError, match=promised):
        check_place(tmp_path / name, EdgebitError, force=False, example="x")


def test_a_new_file_and_a_forced_one_may_be_made(tmp_path):
    (tmp_path / "there").write_bytes(b"")
    check_place(tmp_path / "new", EdgebitError, force=False, example="x")
    check_place(tmp_path / "there", EdgebitError, force=True, example="x")
