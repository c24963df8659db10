"""A trial that no deploy decides any more: the device decides it itself; and starts that cannot be counted."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from edgebit.bundle.slots import TRIES, Slots, locked
from edgebit.daemon.install import gate
from edgebit.daemon.install.service import Service
from edgebit.daemon.install.settings import keep_settings, set_aside
from edgebit.errors import DeployError


def wait_until(happened, timeout_s=30):
    """Return once it has."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gate_process(device, identity, *options):
    """The gate as a child of this test, which stands for the daemon that it guards; hurried."""
    return subprocess.Popen(
        [sys.executable, str(device.root / "active" / "edgebitd.pyz"), "agent", "--root", str(device.root), "gate",
         identity, str(os.getpid()), "--delay-s", "0", "--again-s", "0.2", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@contextlib.contextmanager
def ended_by_the_gate():
    """This process is told to end within the block, as a daemon would be."""
    ended = []
    before = signal.signal(signal.SIGTERM, lambda *_: ended.append("SIGTERM"))
    try:
        yield
        wait_until(lambda: ended)
    finally:
        signal.signal(signal.SIGTERM, before)


def put_on_trial(device):
    """As after a deploy that was lost before its commit."""
    state = device.root / "state.json"
    content = json.loads(state.read_text())
    active = (device.root / "active").readlink().name
    content["slots"][active].update(status="trying", tries_left=2)
    state.write_text(json.dumps(content))
    return content["slots"][active]["id"]


def test_trial_that_answers_is_kept(make_bundle, local_device):
    """By the device itself, when the machine that deployed is gone."""
    local_device.deploy(make_bundle("old"))
    local_device.deploy(make_bundle("new"))
    process = gate_process(local_device, put_on_trial(local_device))

    assert json.loads(process.communicate(timeout=60)[0]) == {"trial": "kept"}
    status = local_device.installed().status()
    assert status["slots"][status["active"]]["status"] == "good"
    assert local_device.running() == "new"


@pytest.mark.slow
def test_silent_trial_goes_back(make_bundle, local_device):
    """The gate refuses it and ends its daemon, here this test's process, so that the one before is started."""
    local_device.deploy(make_bundle("old"))
    silent = make_bundle("silent", answers="no")
    with pytest.raises(DeployError):
        local_device.deploy(silent, timeout_s=3)
    slots = Slots(local_device.root)
    slots.stage(silent.manifest_bytes, force=True)
    slots.switch(silent.id)
    local_device.installed().ask("start", "--service", "supervisor")
    with ended_by_the_gate():
        process = gate_process(local_device, silent.id, "--timeout-s", "2")
    process.kill()
    process.communicate()

    status = local_device.installed().status()
    assert "did not answer a ping" in status["refused"][silent.id]
    assert status["slots"][status["active"]]["name"] == "old"


@pytest.mark.slow
def test_lost_deploy_with_wrong_settings_goes_back(make_bundle, local_device):
    """The broker cannot be reached with them, and nobody is there to say so: the ones from before come back."""
    bundle = make_bundle("old")
    local_device.deploy(bundle)
    toml = local_device.root / "edgebitd.toml"
    right = toml.read_text()
    set_aside(local_device.root)
    toml.write_text(right.replace(local_device.broker, "mqtt://127.0.0.1:1"))
    with ended_by_the_gate():
        process = gate_process(local_device, bundle.id)
    process.kill()
    process.communicate()

    assert toml.read_text() == right
    assert not (local_device.root / "settings.before").exists()


@pytest.mark.slow
def test_broker_that_is_away_is_no_bundles_fault(make_bundle, local_device):
    """With the settings from before it would be as far away: the trial stays open until it can be decided."""
    local_device.deploy(make_bundle("old"))
    local_device.deploy(make_bundle("new"))
    identity = put_on_trial(local_device)
    toml = local_device.root / "edgebitd.toml"
    right = toml.read_text()
    toml.write_text(right.replace(local_device.broker, "mqtt://127.0.0.1:1"))
    process = gate_process(local_device, identity)
    assert "stays on trial: the device cannot reach the broker" in process.stderr.readline()
    assert process.poll() is None
    assert Slots(local_device.root).active().status == "trying"

    toml.write_text(right)

    assert json.loads(process.communicate(timeout=30)[0]) == {"trial": "kept"}


def test_answer_of_the_gate_is_not_in_the_log(monkeypatch, tmp_path):
    """The daemon's standard output is the log; the gate's answer, JSON, is for programs."""
    argv = [sys.executable, "-c", "import sys; print('answer'); print('words', file=sys.stderr)"]
    slots = SimpleNamespace(active=lambda: SimpleNamespace(id="0"))
    monkeypatch.setattr(gate, "Slots", lambda root: slots)
    monkeypatch.setattr(gate, "_on_trial", lambda root, identity: True)
    monkeypatch.setattr(gate, "gate_argv", lambda *_: argv)
    place = tmp_path / "log"
    with place.open("wb") as log:
        kept = os.dup(1), os.dup(2)
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            gate.start_gate(tmp_path)
        finally:
            for number, handle in enumerate(kept, 1):
                os.dup2(handle, number)
                os.close(handle)

    wait_until(lambda: "words" in place.read_text())
    assert place.read_text() == "words\n"


@pytest.mark.slow
def test_daemon_whose_bundle_is_no_longer_active_is_ended(make_bundle, local_device):
    """A deploy went back and was lost before it could start the one before."""
    local_device.deploy(make_bundle("old"))
    new = make_bundle("new")
    local_device.deploy(new)
    Slots(local_device.root).rollback()
    with ended_by_the_gate():
        process = gate_process(local_device, new.id)
    process.kill()
    process.communicate()


def test_settings_on_trial_have_their_starts(make_bundle, local_device):
    """After them, the ones from before are back; settings that were kept are started for ever."""
    local_device.deploy(make_bundle())
    local_device.installed().ask("stop")
    toml, service = local_device.root / "edgebitd.toml", Service(local_device.root)
    right = toml.read_text()
    set_aside(local_device.root)
    toml.write_text(right + "# other\n")

    for _ in range(TRIES):
        service.starting()
        assert toml.read_text() != right
    service.starting()

    assert toml.read_text() == right
    keep_settings(local_device.root)
    for _ in range(TRIES + 2):
        service.starting()
    assert toml.read_text() == right


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS])
def test_disk_that_takes_nothing_keeps_no_daemon_from_its_start(make_bundle, local_device, monkeypatch, fault):
    """On trial or not, what `active` names is started, uncounted."""
    bundle = make_bundle()
    local_device.deploy(bundle)
    put_on_trial(local_device)

    def refuse(*_):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(Slots, "_write", refuse)

    slot = Service(local_device.root).starting()

    assert (slot.id, slot.tries_left) == (bundle.id, 2)


def test_deploy_that_holds_the_slots_keeps_no_daemon_from_its_start(make_bundle, local_device, monkeypatch):
    """Summing a large model takes minutes on a small device."""
    monkeypatch.setattr("edgebit.daemon.install.service._SLOTS_WAIT_S", 0.2)
    bundle = make_bundle()
    local_device.deploy(bundle)

    with locked(local_device.root):
        assert Service(local_device.root).starting().id == bundle.id


def test_supervisor_takes_over_without_a_gap(make_bundle, local_device):
    """The new one ends the old one itself, and only after it knows that there is something to start."""
    local_device.deploy(make_bundle())
    lock = local_device.root / "run" / "supervisor.lock"
    first = int(lock.read_text())

    local_device.installed().ask("start", "--service", "supervisor")

    assert int(lock.read_text()) != first
    assert local_device.running() == "one"
    active = local_device.root / "active"
    target = active.readlink()
    active.unlink()
    second = int(lock.read_text())
    with pytest.raises(DeployError, match="no bundle is active"):
        Service(local_device.root).supervise()
    assert int(lock.read_text()) == second and os.path.exists(f"/proc/{second}")  # noqa: PTH110 - a process
    active.symlink_to(target)


def test_daemon_that_somebody_ended_comes_back(make_bundle, local_device):
    """A signal that is no crash is no wish to be mute either: that is `stop`."""
    local_device.deploy(make_bundle())
    pid = local_device.installed().status()["pid"]

    os.kill(pid, signal.SIGTERM)

    wait_until(lambda: local_device.installed().status()["pid"] not in (None, pid))
