"""Starting the supervisor while another one, started before, still waits to take over."""

import subprocess
from types import SimpleNamespace

import pytest

from edgebit.daemon.install.service import Service
from edgebit.errors import DeployError


def ended(command: str) -> subprocess.Popen:
    process = subprocess.Popen(["sh", "-c", command])
    process.wait()
    return process


@pytest.mark.parametrize("command", ["exit 0", "kill -TERM $$"])
def test_one_that_was_told_to_end_is_started_again(tmp_path, monkeypatch, command):
    """Else the device would be mute: whoever told it to may have ended as well."""
    service = Service(tmp_path)
    up = SimpleNamespace(pid=7)
    spawned = [ended(command), up]
    monkeypatch.setattr(service, "_spawn_supervisor", lambda: spawned.pop(0))
    monkeypatch.setattr(service, "_supervisor_pid", lambda: 7 if not spawned else None)
    service._start_supervisor()
    assert not spawned


def test_one_that_fails_is_told(tmp_path, monkeypatch):
    """It is not tried for ever."""
    service = Service(tmp_path)
    monkeypatch.setattr(service, "_spawn_supervisor", lambda: ended("exit 3"))
    with pytest.raises(DeployError, match="ended with code 3"):
        service._start_supervisor()
