"""A supervisor that starts while another one still waits to take over, and children of one that is gone."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from edgebit.daemon.install.service import Service, die_with_parent
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_child_whose_parent_went_before_it_asked_ends():
    """Nobody would tell it any more: it would hold the daemon's state for ever, and keep the next daemon out."""
    orphan = subprocess.Popen(["sleep", "60"], preexec_fn=die_with_parent(os.getppid()))
    child = subprocess.Popen(["true"], preexec_fn=die_with_parent(os.getpid()))
    assert (orphan.wait(), child.wait()) == (128 + signal.SIGTERM, 0)
