"""Deploys to a folder of this machine: the real agent, supervisor, slots and broker; engine and daemon act."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from mqtt_fixtures import Ear
from paho.mqtt.publish import multiple

from edgebit.daemon.install.broker_memory import HOME_ASSISTANT_MARK, forget_at_broker
from edgebit.deploy.device import Device, removable
from edgebit.device_probe import probe
from edgebit.errors import BundleError, DeployError
from edgebit.transport import open_transport


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
    """The same bundle again with the same settings is a check: the daemon runs on."""
    bundle = make_bundle()
    local_device.deploy(bundle)
    pid = local_device.installed().status()["pid"]

    outcome = local_device.deploy(bundle)

    assert outcome.sent_bytes == 0
    assert [step.action for step in local_device.reporter.steps] == ["configure", "ensure", "check", "commit"]
    assert local_device.installed().status()["pid"] == pid


def test_deploying_what_is_there_starts_a_stopped_daemon(make_bundle, local_device):
    """Where the check alone would fail."""
    bundle = make_bundle()
    local_device.deploy(bundle)
    local_device.installed().ask("stop")

    local_device.deploy(bundle)

    assert local_device.running() == "one"


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
    assert "acts yes" not in str(refused.value), "and none of the old bundle's, nor of earlier runs"
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


def test_daemon_that_starts_again_after_its_answer(make_bundle, local_device):
    """It says no bundle until its model is loaded: that is this daemon, which ended, and no other device."""
    with pytest.raises(DeployError, match="answered, and then ended"):
        local_device.deploy(make_bundle(answers="anew"), timeout_s=10)


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


@pytest.mark.parametrize("again", [False, True])
def test_wrong_settings_go_back_with_the_bundle(make_bundle, local_device, again):
    """A wrong broker, with a new bundle or the one that is there: the settings from before are back and answer."""
    first, second = make_bundle("first"), make_bundle("second")
    local_device.deploy(first)
    (local_device.root / "mqtt.password").write_text("secret\n")
    settings = (local_device.root / "edgebitd.toml").read_bytes()
    right, local_device.broker = local_device.broker, "mqtt://127.0.0.1:1"

    with pytest.raises(DeployError, match="again with the settings from before"):
        local_device.deploy(first if again else second, timeout_s=10)

    assert (local_device.root / "edgebitd.toml").read_bytes() == settings
    assert (local_device.root / "mqtt.password").read_text() == "secret\n"
    assert local_device.running() == "first"
    status = local_device.installed().status()
    assert status["refused"] == {} and status["slots"][status["active"]]["status"] == "good"
    local_device.broker = right
    local_device.deploy(second)
    assert local_device.running() == "second"
    assert not (local_device.root / "settings.before").exists()


def start_edgebit(*args):
    """A command in a process group of its own, as a terminal gives it one."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgebit", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def interrupt(process):
    """Ctrl-C as a terminal does it; gives what was said."""
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return out + err


def test_ctrl_c_in_the_health_gate_blames_nobody(make_bundle, local_device):
    """The old bundle runs, the new one is not refused, the exit code is 130."""
    local_device.deploy(make_bundle("old"))
    silent = make_bundle("silent", answers="no")
    process = start_edgebit("deploy", str(silent.path), "--to", local_device.url)
    while not process.stdout.readline().startswith("wait for an answer"):
        assert process.poll() is None
    time.sleep(1)

    said = interrupt(process)

    assert process.returncode == 130, said
    assert "can be deployed again" in " ".join(said.split())
    assert local_device.running() == "old"
    assert local_device.installed().status()["refused"] == {}
    with pytest.raises(DeployError, match=r"taken back: the daemon did not answer"):
        local_device.deploy(silent, timeout_s=4)


@pytest.mark.parametrize("delay_s", [0.2, 0.5, 1.0])
def test_ctrl_c_in_a_rollback_leaves_a_daemon_running(make_bundle, local_device, delay_s):
    """Whenever it comes."""
    local_device.deploy(make_bundle("zero"))
    local_device.deploy(make_bundle("second"))
    process = start_edgebit("rollback", local_device.url)
    deadline = time.monotonic() + 20
    while (local_device.root / "active").readlink().name == "b" and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay_s)

    said = interrupt(process)

    done = "is active again" in said
    # One that is done and about to end is ended by the signal itself: Python has laid its handler down by then.
    assert process.returncode in ((0, 130, -signal.SIGINT) if done else (130,)), said
    assert local_device.running() == "zero"
    assert done or "The device runs bundle" in said


def test_rollback_without_a_broker_says_what_runs(make_bundle, local_device):
    """The bundle before runs, though nobody heard it."""
    first = make_bundle("first")
    local_device.deploy(first)
    local_device.deploy(make_bundle("second"))
    toml = local_device.root / "edgebitd.toml"
    toml.write_text(toml.read_text().replace(local_device.broker, "mqtt://127.0.0.1:1"))

    with pytest.raises(DeployError, match=f"cannot reach the broker.*runs bundle {first.id} now"):
        local_device.installed().rollback(service="supervisor", check_timeout_s=4)


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


def test_folder_of_somebody_else_is_refused(make_bundle, local_device):
    """And nothing in it is touched; what a cut-off first deploy leaves is no obstacle."""
    (local_device.root / "store").mkdir(parents=True)
    (local_device.root / "store" / "photo.jpg").write_text("mine")
    with pytest.raises(DeployError, match=r"not edgebit's: it holds store/photo\.jpg"):
        local_device.deploy(make_bundle("one"))
    (local_device.root / "store" / "photo.jpg").unlink()
    (local_device.root / "store" / f"{'0' * 64}.part").write_bytes(b"cut off")

    local_device.deploy(make_bundle("two"))

    assert local_device.running() == "two"


def test_damaged_bundle_is_refused(make_bundle, local_device):
    """By its sums, even if the device has the bundle already."""
    bundle = make_bundle()
    local_device.deploy(bundle)
    member = bundle.member("model.ebm")
    with bundle.path.open("r+b") as file:
        file.seek(member.offset)
        file.write(b"X")

    with pytest.raises(BundleError, match=r"model\.ebm is damaged"):
        local_device.deploy(bundle)


def test_restart_reads_what_was_edited_by_hand(make_bundle, local_device):
    """The next process answers by the new settings; with faulty ones the process that runs is left alone."""
    local_device.deploy(make_bundle())
    device, settings = local_device.installed(), local_device.root / "edgebitd.toml"
    before = device.status()["pid"]
    settings.write_text(settings.read_text().replace('"test"', '"renamed"'))

    answer = device.restart(service="supervisor", check_timeout_s=20)

    assert answer["device"] == "renamed" and answer["id"] == device.active_id()
    after = device.status()["pid"]
    assert after not in (None, before)

    good = settings.read_text()
    for lines, words in (
        ("[engine]\nthredas = 2\n", "thredas"),
        (f'[engine]\nengine = "onnx"\nonnx_folder = "{local_device.root}"\n', "holds no model.onnx"),
        ('[content_filter]\nclassifier = ["/no/such"]\n', "is no program that can be run"),
    ):
        settings.write_text(f"{good}\n{lines}")
        with pytest.raises(DeployError, match=rf"{words}.*nothing was restarted"):
            device.restart(service="supervisor")
        assert device.status()["pid"] == after


def test_a_restart_that_brings_no_answer_shows_the_log(make_bundle, local_device):
    """How long it may take is said before, and what the daemon and its supervisor said last is said then."""
    local_device.deploy(make_bundle(ballast=len("crash") - len("yes")))
    model = local_device.root / "active" / "model.ebm"
    acts = json.loads(model.read_text())
    model.unlink()
    model.write_text(json.dumps({**acts, "answers": "crash", "ballast": ""}))  # of the size that it had
    said = []
    with pytest.raises(DeployError, match=r"did not answer a ping within 3 s") as raised:
        local_device.installed().restart(service="supervisor", check_timeout_s=3, say=said.append)
    assert said == ["The daemon was started again, and has 3 s to answer"]
    assert "acts crash\n" in str(raised.value) and "supervisor: the daemon ended with exit code 70" in str(raised.value)


def test_uninstall_leaves_nothing(make_bundle, local_device):
    """No file and no process stays."""
    local_device.deploy(make_bundle())
    pid = local_device.installed().status()["pid"]
    prefixes = local_device.root / "state" / "prefixes"
    prefixes.mkdir(parents=True)
    for name in (f"{'0' * 64}.kv", f"{'1' * 64}.77.new"):  # what [engine] prefix_disk_mib keeps: tokens of prompts
        (prefixes / name).write_bytes(b"tokens")

    assert local_device.installed().uninstall(keep_config=False) == []

    assert not local_device.root.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_uninstall_takes_what_a_first_deploy_left_half_way(local_device):
    """Before an agent was there; a folder of somebody else, whose files only look like it, stays as it is."""
    store, transport = local_device.root / "store", open_transport(local_device.url)
    for folder in (store, local_device.root / "run", local_device.root / "slots" / "a.new"):
        folder.mkdir(parents=True)
    for name in ("0" * 64, "1" * 64 + ".part", "2" * 64 + ".part.z", "../run/slots.lock", "../slots/a.new/model.ebm"):
        (store / name).write_bytes(b"cut off")
    with pytest.raises(DeployError, match="stopped half-way"):
        local_device.installed()
    (store / "photo.jpg").touch()
    assert removable(transport, probe(transport)) is None
    (store / "photo.jpg").unlink()

    assert removable(transport, probe(transport)).uninstall(keep_config=False) == []

    assert not local_device.root.exists()


def test_uninstall_has_the_broker_forget_the_device(make_bundle, local_device):
    """Whoever comes later hears nothing of it; where the broker is away, its commands are said."""
    local_device.deploy(make_bundle())
    port = int(local_device.broker.rpartition(":")[2])
    (local_device.root / "state").mkdir(exist_ok=True)
    (local_device.root / "state" / HOME_ASSISTANT_MARK).write_text("homeassistant/device/edgebit_test/config\n")
    home = "homeassistant/device/edgebit_test/config"
    retained = [home, *(f"edgebit/v1/test/{kind}" for kind in ("availability", "info", "status"))]
    multiple([(topic, "{}", 1, True) for topic in retained], port=port)
    said = []

    assert local_device.installed().uninstall(keep_config=False, say=said.append) == []

    assert said == []
    ear = Ear(port, *retained, "end")
    ear.say("end", "all that is retained has come before this")
    assert ear.next().topic == "end"
    ear.close()


def test_uninstall_says_how_to_clear_a_broker_that_is_away(tmp_path):
    """The agent's own words, made into commands."""
    (tmp_path / "edgebitd.toml").write_text('[device]\nname = "test"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n')
    device = Device(open_transport(f"local:{tmp_path}"), probe(open_transport(f"local:{tmp_path}")), "none")
    said = []
    device.ask = lambda *_, **__: {"left": [], **forget_at_broker(tmp_path)}

    assert device.uninstall(keep_config=False, say=said.append) == []

    assert "cannot reach the broker mqtt://127.0.0.1:1" in said[0]
    assert "mosquitto_pub -h 127.0.0.1 -p 1 -r -n -t edgebit/v1/test/availability" in said[0]
    (tmp_path / "edgebitd.toml").unlink()
    assert forget_at_broker(tmp_path) == {}


def test_uninstall_can_keep_the_configuration(make_bundle, local_device):
    """Then the next deploy needs no broker."""
    local_device.deploy(make_bundle())

    assert local_device.installed().uninstall(keep_config=True) == ["edgebitd.toml", "trust.json"]

    assert (local_device.root / "edgebitd.toml").exists()


@pytest.mark.parametrize(
    ("limits", "promised"),
    [
        ({"min_tok_s": 3.0}, "it decodes at 2.00 tok/s, and 3 tok/s were asked for"),
        ({"rss_max_mib": 1.0}, "and 1 MiB were allowed"),
    ],
)
def test_bundle_that_misses_a_limit_is_taken_back(make_bundle, local_device, limits, promised):
    """It answers, but too slowly, or holds too much; within the limits it stays, and the outcome has the figures."""
    local_device.deploy(make_bundle("old"))
    new = make_bundle("new")
    with pytest.raises(DeployError) as refused:
        local_device.deploy(new, **limits)
    assert promised in str(refused.value)
    assert local_device.running() == "old"

    outcome = local_device.deploy(new, force=True, min_tok_s=1.5, rss_max_mib=200.0)

    assert outcome.tok_s == 2.0 and 1 < outcome.rss_mib < 200


def test_bundle_that_answers_once_and_dies_is_taken_back(make_bundle, local_device):
    """That is what it must stay up for."""
    local_device.deploy(make_bundle("old"))

    with pytest.raises(DeployError, match="answered, and then ended"):
        local_device.deploy(make_bundle("flash", answers="once"), stay_up_s=10.0)

    assert local_device.running() == "old"
