"""Our own supervisor as a watchdog: what it hears of a daemon, and what becomes of one that hangs."""

import signal
import subprocess
import sys
import threading

import pytest

from edgebit.daemon.install.heartbeat import SILENCE_S, Heartbeat
from edgebit.daemon.install.service import Service
from edgebit.daemon.monitoring.notify import Notifier


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def heard(tmp_path):
    """A heartbeat, its clock, and the daemon's end of it."""
    clock = Clock()
    with Heartbeat(tmp_path / "notify", clock) as heartbeat:
        yield heartbeat, clock, Notifier.from_environment(heartbeat.environment())


def test_silence_counts_from_the_last_word(heard):
    """Not before the daemon is up. That it stops is its last, and one that hangs while it stops is ended too."""
    heartbeat, clock, daemon = heard
    clock.now += 10 * SILENCE_S
    assert not heartbeat.is_late()
    daemon.ready()
    daemon.status("ready")
    assert not heartbeat.is_late()
    clock.now += SILENCE_S
    assert not heartbeat.is_late()
    daemon.alive()
    assert not heartbeat.is_late()
    clock.now += SILENCE_S + 1
    daemon.status("a status is no sign that work goes on")
    assert heartbeat.is_late()
    daemon.stopping()
    assert not heartbeat.is_late()
    clock.now += SILENCE_S
    assert not heartbeat.is_late()
    clock.now += 1
    assert heartbeat.is_late()


def test_the_daemon_is_told_how_often(heard):
    """As systemd would tell it."""
    assert heard[2].watchdog_s == SILENCE_S


def test_without_a_socket_nobody_watches(tmp_path, monkeypatch):
    """A path that is too long for one: the daemon is started all the same, and not with another's socket."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/other")
    with Heartbeat(tmp_path / ("long" * 40)) as heartbeat:
        assert "NOTIFY_SOCKET" not in heartbeat.environment() and not heartbeat.is_late()


_HANGS = """
import os, socket, time
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
print("up", flush=True)
time.sleep(600)
"""


def test_a_daemon_that_hangs_is_ended(tmp_path, capfd):
    """By SIGABRT, at which its log says where it stood."""
    clock = Clock()
    with Heartbeat(tmp_path / "notify", clock) as heartbeat:
        child = subprocess.Popen([sys.executable, "-c", _HANGS], env=heartbeat.environment(), stdout=subprocess.PIPE)
        try:
            assert child.stdout.readline() == b"up\n"
            assert not heartbeat.is_late()
            clock.now += SILENCE_S + 1
            code = Service(tmp_path)._wait(child, threading.Event(), heartbeat)
        finally:
            child.kill()
            child.communicate()
    assert code == -signal.SIGABRT and "is ended" in capfd.readouterr().err
