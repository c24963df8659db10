"""Deploys to a folder of this machine: the real agent, supervisor, slots and broker; engine and daemon act."""

import json
import os
import signal
import time

import pytest

from edgebit.errors import DeployError


def test_first_deploy_answers_and_stays(make_bundle, local_device):
    """A bundle goes to an empty device, answers over MQTT, and is good."""
    bundle = make_bundle()

    outcome = local_device.deploy(bundle)

    status = local_device.installed().status()
    assert status["slots"][status["active"]] | {"id": bundle.id, "status": "good"} == status["slots"][status["active"]]
    assert (outcome.id, outcome.device, outcome.probes) == (bundle.id, "test", 3)
    assert outcome.sent_files == 4
    assert local_device.reporter.sent == {name: entry.size for name, entry in bundle.manifest.files.items()}
    assert (local_device.root / "edgebitd.toml").stat().st_mode & 0o777 == 0o600
    assert local_device.root.stat().st_mode & 0o777 == 0o700


def test_second_deploy_sends_what_differs(make_bundle, local_device):
    """Only the file that the device lacks is sent; the old bundle stays as the one before."""
    first, second = make_bundle("first"), make_bundle("second")
    local_device.deploy(first)

    outcome = local_device.deploy(second)

    assert list(local_device.reporter.sent) == ["model.ebm"]
    assert outcome.sent_bytes == second.manifest.files["model.ebm"].size
    status = local_device.installed().status()
    assert {slot["name"] for slot in status["slots"].values()} == {"first", "second"}
    assert local_device.running() == "second"
    assert status["slots"][status["previous"]]["name"] == "first"


def test_deploying_what_is_there_sends_nothing(make_bundle, local_device):
    """The same bundle again is a restart and a check."""
    bundle = make_bundle()
    local_device.deploy(bundle)

    outcome = local_device.deploy(bundle)

    assert outcome.sent_bytes == 0
    assert [step.action for step in local_device.reporter.steps] == ["configure", "start", "check"]


@pytest.mark.parametrize(
    ("golden", "promised"), [("wrong", "differs in layer 1"), ("crash", "does not know an instruction")]
)
def test_failed_selftest_leaves_the_old_bundle_untouched(make_bundle, local_device, golden, promised):
    """A bundle whose probes differ, or whose library crashes, is refused before anything is stopped."""
    local_device.deploy(make_bundle("old"))
    pid = local_device.installed().status()["pid"]

    with pytest.raises(DeployError, match=promised):
        local_device.deploy(make_bundle("new", golden=golden))

    assert local_device.installed().status()["pid"] == pid
    assert local_device.running() == "old"


@pytest.mark.parametrize("answers", ["no", "error", "crash"])
def test_silent_bundle_is_taken_back(make_bundle, local_device, answers):
    """A daemon that is silent, answers with an error, or dies: the old bundle is back, and the new one refused."""
    local_device.deploy(make_bundle("old"))
    bad = make_bundle("bad", answers=answers)

    with pytest.raises(DeployError) as refused:
        local_device.deploy(bad, timeout_s=4)

    assert "was taken back" in str(refused.value)
    assert f"acts {answers}" in str(refused.value), "the log's last lines are shown"
    assert local_device.running() == "old"
    with pytest.raises(DeployError, match="taken back on this device"):
        local_device.deploy(bad)
    with pytest.raises(DeployError, match="was taken back: "):
        local_device.deploy(bad, force=True, timeout_s=4)
    assert local_device.running() == "old"


def test_answer_of_another_device_does_not_count(make_bundle, local_device):
    """Where another device has the same name, its answer is not taken for this one's."""
    with pytest.raises(DeployError, match="another device has that name"):
        local_device.deploy(make_bundle(poses_as="0123456789abcdef"), timeout_s=10)


def test_silent_first_bundle_leaves_nothing_running(make_bundle, local_device):
    """With no bundle before it, a bad one is stopped, and a good one can follow."""
    with pytest.raises(DeployError, match="none runs now"):
        local_device.deploy(make_bundle("bad", answers="no"), timeout_s=4)
    assert local_device.running() is None

    local_device.deploy(make_bundle("good"))

    assert local_device.running() == "good"


def test_unreachable_broker_is_named(make_bundle, local_device):
    """Where the device cannot reach the broker, the message says which."""
    local_device.broker = "mqtt://127.0.0.1:1"

    with pytest.raises(DeployError, match=r"cannot reach the broker mqtt://127\.0\.0\.1:1"):
        local_device.deploy(make_bundle(), timeout_s=4)


def test_rollback_goes_back_and_forth(make_bundle, local_device):
    """Each rollback runs the other bundle."""
    local_device.deploy(make_bundle("first"))
    local_device.deploy(make_bundle("second"))

    local_device.installed().rollback(service="supervisor", check_timeout_s=20)
    assert local_device.running() == "first"
    local_device.installed().rollback(service="supervisor", check_timeout_s=20)
    assert local_device.running() == "second"


def test_rollback_without_a_bundle_before_is_refused(make_bundle, local_device):
    """And the daemon keeps running."""
    local_device.deploy(make_bundle())

    with pytest.raises(DeployError, match="no bundle before"):
        local_device.installed().rollback(service="supervisor")

    assert local_device.running() == "one"


def test_killed_daemon_comes_back(make_bundle, local_device):
    """The supervisor starts a daemon that was killed again."""
    local_device.deploy(make_bundle())
    pid = local_device.installed().status()["pid"]

    os.kill(pid, signal.SIGKILL)

    deadline = time.monotonic() + 20
    while local_device.installed().status()["pid"] in (None, pid):
        assert time.monotonic() < deadline
    text, _ = local_device.installed().logs(10)
    assert "ended with signal 9 (Killed)" in text


def test_daemon_dies_with_its_supervisor(make_bundle, local_device):
    """No daemon runs that nobody minds; the next deploy starts cleanly."""
    local_device.deploy(make_bundle())
    pid = local_device.installed().status()["pid"]

    os.kill(int((local_device.root / "run" / "supervisor.lock").read_text()), signal.SIGKILL)

    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}"):  # noqa: PTH110 - a process, not a path
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert local_device.installed().status()["up"] is False
    local_device.deploy(make_bundle("two"))
    assert local_device.running() == "two"


def test_damaged_file_on_the_device_is_sent_again(make_bundle, local_device):
    """A stored file whose content changed is found by its sum and replaced."""
    first, second = make_bundle("first"), make_bundle("second")
    local_device.deploy(first)
    library = local_device.root / "store" / first.manifest.files["lib/libedgebit.so"].sha256
    library.chmod(0o644)
    library.write_bytes(b"x" * library.stat().st_size)

    local_device.deploy(second)

    assert local_device.reporter.remarks[0] == "lib/libedgebit.so is damaged on the device and is sent again"
    assert library.read_bytes() != b"x" * library.stat().st_size


def test_cut_off_deploy_is_settled_by_the_next(make_bundle, local_device):
    """A bundle left on trial stays if it answers, and the next deploy goes on from there."""
    first, second, third = make_bundle("first"), make_bundle("second"), make_bundle("third")
    local_device.deploy(first)
    local_device.deploy(second)
    state = local_device.root / "state.json"
    content = json.loads(state.read_text())
    content["slots"]["b"].update(status="trying", tries_left=2)
    state.write_text(json.dumps(content))

    local_device.deploy(third)

    assert "settle" in [step.action for step in local_device.reporter.steps]
    status = local_device.installed().status()
    assert {slot["name"] for slot in status["slots"].values()} == {"second", "third"}
    assert local_device.running() == "third"


def test_uninstall_leaves_nothing(make_bundle, local_device):
    """No file and no process stays."""
    local_device.deploy(make_bundle())
    pid = local_device.installed().status()["pid"]

    assert local_device.installed().uninstall(keep_config=False) == []

    assert not local_device.root.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_uninstall_can_keep_the_configuration(make_bundle, local_device):
    """Then the next deploy needs no broker."""
    local_device.deploy(make_bundle())

    assert local_device.installed().uninstall(keep_config=True) == ["edgebitd.toml"]

    assert (local_device.root / "edgebitd.toml").exists()
