"""The local transport."""

import os

import pytest

from edgebit.errors import TransportError
from edgebit.transport import Section, open_transport


def test_runs_puts_and_gets(tmp_path):
    """The same verbs as over ssh, on this machine."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    told = []
    with open_transport(f"local:{tmp_path}/device") as device:
        device.put(Section(source, 10, 2_000_000), str(tmp_path / "there"), told.append)
        device.get(str(tmp_path / "there"), tmp_path / "back")
        done = device.run(["sh", "-c", "cat; exit 3"], input=b"x")

    assert (tmp_path / "back").read_bytes() == source.read_bytes()[10:2_000_010]
    assert sum(told) == 2_000_000
    assert (done.stdout, done.code) == ("x", 3)


def test_root_is_absolute(tmp_path, monkeypatch):
    """The daemon outlives the folder that the command was started in."""
    monkeypatch.chdir(tmp_path)

    assert open_transport("local:device").root == str(tmp_path / "device")


def test_file_that_shrank_is_noticed(tmp_path):
    """A copy is never silently short."""
    (tmp_path / "source").write_bytes(b"abc")

    with pytest.raises(TransportError, match="ends 7 bytes early"):
        open_transport(f"local:{tmp_path}").put(Section(tmp_path / "source", 0, 10), str(tmp_path / "there"))


@pytest.mark.parametrize("url", ["local:", "local://"])
def test_no_folder_is_refused(url):
    """With the form it should have."""
    with pytest.raises(TransportError, match="local:FOLDER"):
        open_transport(url)


def test_faults_of_programs_are_explained(tmp_path):
    """A program that is not there, and one that hangs."""
    with open_transport(f"local:{tmp_path}") as device:
        with pytest.raises(TransportError, match="No such file"):
            device.run(["no-such-program"])
        with pytest.raises(TransportError, match=r"did not end within 0\.2 s"):
            device.run(["sleep", "9"], timeout_s=0.2)
