"""Installing from a bundle file on the device itself: the agent's `install` and `retract`, on a real agent."""

import json
import subprocess
import sys

import pytest
from signing_keys import make_key, signing


class OnDevice:
    """Calls the agent as somebody on the device does."""

    def __init__(self, device):
        self.device = device

    def __call__(self, pyz, *args, code=0):
        argv = [sys.executable, str(pyz), "agent", "--root", str(self.device.root), *map(str, args)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if code == 0 else done.stderr

    @property
    def installed(self):
        return self.device.root / "active" / "edgebitd.pyz"


@pytest.fixture
def on_device(local_device):
    """The device's own shell, so to say."""
    return OnDevice(local_device)


def test_the_first_bundle_brings_its_own_agent(make_bundle, on_device, local_device, acting_pyz):
    """On a device with nothing on it; the broker is named once."""
    bundle = make_bundle()

    assert "does not know its broker" in on_device(acting_pyz, "install", bundle.path, code=8)
    told = on_device(
        acting_pyz, "install", bundle.path, "--mqtt", local_device.broker, "--device-name", "here",
        "--service", "supervisor",
    )  # fmt: skip

    assert told["id"] == bundle.id and told["device"] == "here" and told["before"] is None and told["kept"]
    assert local_device.running() == "one"
    status = local_device.installed().status()
    assert status["slots"][status["active"]]["status"] == "good"


def test_the_next_one_is_installed_by_the_one_that_runs(make_bundle, on_device, local_device):
    """Broker and service stay as they are."""
    local_device.deploy(make_bundle("old"))
    new = make_bundle("new")

    told = on_device(on_device.installed, "install", new.path, "--name", "new", "--id", new.id)

    assert told["before"] != told["id"] == new.id
    assert local_device.running() == "new"
    assert on_device(on_device.installed, "install", new.path)["slot"] == ""  # there already: only asked


@pytest.mark.slow
@pytest.mark.parametrize("act", [{"golden": "wrong"}, {"answers": "no"}, {"answers": "error"}])
def test_a_bad_one_goes_back_by_itself(make_bundle, on_device, local_device, act):
    """As in any deploy; exit code 8."""
    local_device.deploy(make_bundle("old"))

    said = on_device(on_device.installed, "install", make_bundle("bad", **act).path, "--timeout-s", 3, code=8)

    assert "self-test failed" in said or "was taken back" in said
    assert local_device.running() == "old"


def test_another_bundle_is_refused(make_bundle, on_device, local_device):
    """By name, id, and damage, before anything is stopped."""
    local_device.deploy(make_bundle("old"))
    pid = local_device.installed().status()["pid"]
    new = make_bundle("new")

    assert "'new', not 'other'" in on_device(on_device.installed, "install", new.path, "--name", "other", code=3)
    assert f"not '{'0' * 16}'" in on_device(on_device.installed, "install", new.path, "--id", "0" * 16, code=3)
    data = bytearray(new.path.read_bytes())
    data[data.index(b"no library")] ^= 1
    new.path.write_bytes(data)
    assert "is damaged" in on_device(on_device.installed, "install", new.path, code=3)
    assert local_device.installed().status()["pid"] == pid


@pytest.mark.slow
def test_on_trial_until_somebody_has_a_word(make_bundle, on_device, local_device):
    """Then it is kept, or taken back; a second word changes nothing."""
    old = make_bundle("old")
    local_device.deploy(old)
    first, second = make_bundle("first"), make_bundle("second")

    told = on_device(on_device.installed, "install", first.path, "--on-trial")
    assert not told["kept"] and told["before"] == old.id
    assert local_device.running() == "first"
    assert on_device(on_device.installed, "retract", first.id) == {"id": old.id, "changed": True}
    assert local_device.running() == "old"
    assert on_device(on_device.installed, "retract", first.id) == {"id": old.id, "changed": False}

    on_device(on_device.installed, "install", second.path, "--on-trial")
    on_device(on_device.installed, "commit", second.id)
    assert local_device.running() == "second"
    assert on_device(on_device.installed, "retract", second.id) == {"id": old.id, "changed": True}
    assert local_device.running() == "old"


def test_the_first_on_trial_leaves_nothing_when_taken_back(make_bundle, on_device, local_device, acting_pyz):
    """And says so."""
    bundle = make_bundle()
    on_device(
        acting_pyz, "install", bundle.path, "--on-trial", "--mqtt", local_device.broker, "--service", "supervisor"
    )

    assert "no bundle before" in on_device(acting_pyz, "retract", bundle.id, code=8)
    assert local_device.running() is None


def test_signed_first_bundle_names_its_key(make_bundle, on_device, local_device, acting_pyz):
    """Without a key there is nobody to trust; with it, the device trusts it from then on."""
    key = make_key(1).public
    signed = make_bundle("signed", signing=signing(make_key(1), sequence=5))
    settings = ("--mqtt", local_device.broker, "--device-name", "here", "--service", "supervisor")

    assert "Name its public key" in on_device(acting_pyz, "install", signed.path, *settings, code=3)
    assert "this one is not signed" in on_device(
        acting_pyz, "install", make_bundle().path, f"--key={key}", *settings, code=3
    )
    on_device(acting_pyz, "install", signed.path, f"--key={key}", *settings)

    assert local_device.installed().status()["trust"] == {"keys": [key.id], "unsigned": "refuse", "floor": 5}
    assert "is not signed" in on_device(on_device.installed, "install", make_bundle("unsigned").path, code=3)
