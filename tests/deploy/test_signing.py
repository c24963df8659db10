"""Signed deploys to a folder of this machine: the agent that runs judges what comes, and keys follow one another."""

import subprocess
import sys
import zipfile

import pytest
from signing_keys import make_key, signing

from edgebit.bundle.trust import Offer, Policy
from edgebit.deploy import plan
from edgebit.errors import BundleError, DeployError

OLD, NEW, STRANGER = make_key(1), make_key(2), make_key(3)
KNOWN = {"old": OLD.public, **{f"other {number}": make_key(number).public for number in range(4, 60)}}


def trust_of(device):
    return device.installed().status()["trust"]


def test_keys_follow_one_another(make_bundle, local_device):
    """First key, refusals, a new key by the old one's word, and the way back, with no hand on the device."""
    local_device.deploy(make_bundle("first", signing=signing(OLD, sequence=5)), keys=KNOWN)

    assert "from then on the device takes only bundles signed by" in local_device.reporter.steps[0].line
    assert trust_of(local_device) == {"keys": [OLD.public.id], "unsigned": "refuse", "floor": 5}
    assert (local_device.root / "trust.json").stat().st_mode & 0o777 == 0o600
    for name, says, promised in (
        ("unsigned", None, "is not signed"),
        ("stranger", signing(STRANGER, sequence=9), "takes only bundles signed by key"),
        ("older", signing(OLD, sequence=4), "none below 5"),
        ("expired", signing(OLD, sequence=9, expires="1d"), "expired at 2026-03-02"),
    ):
        with pytest.raises(BundleError, match=promised):
            local_device.deploy(make_bundle(name, signing=says), force=True, keys={"stranger": STRANGER.public})

    local_device.deploy(make_bundle("hand-over", signing=signing(OLD, NEW, sequence=6, trust=(NEW,))))

    assert f"trusts key {NEW.public.id} instead of {OLD.public.id}" in local_device.reporter.steps[0].line
    assert trust_of(local_device) == {"keys": [NEW.public.id], "unsigned": "refuse", "floor": 6}
    with pytest.raises(BundleError, match=f"only bundles signed by key {NEW.public.id}"):
        local_device.deploy(make_bundle("too-late", signing=signing(OLD, sequence=7)), keys=KNOWN)
    local_device.installed().rollback(service="supervisor", check_timeout_s=20)
    assert local_device.running() == "first", "it was let in once, and the floor is for what comes"
    local_device.deploy(make_bundle("third", signing=signing(NEW, sequence=7)))
    assert local_device.running() == "third"
    assert trust_of(local_device) == {"keys": [NEW.public.id], "unsigned": "refuse", "floor": 7}


def test_bundle_that_runs_after_a_roll_back_is_no_new_one(make_bundle, local_device):
    """Its settings can be changed and its files sent again; the same without its signature, or unkept, is refused."""
    first = make_bundle("first", signing=signing(OLD, sequence=4))
    local_device.deploy(first, keys=KNOWN)
    local_device.deploy(make_bundle("second", signing=signing(OLD, NEW, sequence=5, trust=(NEW,))))
    trust = trust_of(local_device)
    local_device.installed().rollback(service="supervisor", check_timeout_s=20)

    local_device.deploy(first)
    assert local_device.reporter.steps[0].action == "configure" and local_device.running() == "first"
    for offer in (Offer(first.manifest_bytes), Offer(first.manifest_bytes, signing(OLD).sign(b"another"))):
        for verb in ("judge", "stage"):
            with pytest.raises(DeployError, match="the device takes only bundles signed by key"):
                local_device.installed().ask(verb, input=offer.to_bytes())

    local_device.deploy(first, force=True)
    assert local_device.reporter.steps[0].action == "judge" and local_device.running() == "first"
    assert trust_of(local_device) == trust == {"keys": [NEW.public.id], "unsigned": "refuse", "floor": 5}


def test_agent_that_runs_judges_and_not_the_one_that_comes(
    make_bundle, local_device, acting_pyz, tmp_path, monkeypatch
):
    """A host that checks nothing, and a bundle whose own agent lets everybody in: nothing of it is sent or run."""
    local_device.deploy(make_bundle("first", signing=signing(OLD, sequence=5)), keys=KNOWN)
    marker, evil = tmp_path / "it-ran", tmp_path / "evil.pyz"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("__main__.py", f"import sys\nopen({str(marker)!r}, 'w')\nprint('{{}}')\n")
    monkeypatch.setattr(plan, "plan_judgement", lambda *_, **__: plan.Step("judge", "let the device judge"))
    stored = sorted(path.name for path in (local_device.root / "store").iterdir())

    for name, says in (("evil-stranger", signing(STRANGER, sequence=9)), ("evil-unsigned", None)):
        with pytest.raises(BundleError, match="takes only bundles signed by key"):
            local_device.deploy(make_bundle(name, pyz=evil, signing=says))

    assert not marker.exists()
    assert sorted(path.name for path in (local_device.root / "store").iterdir()) == stored
    assert local_device.running() == "first"


@pytest.mark.slow
def test_agent_that_crashes_lets_nobody_in(make_bundle, local_device, acting_pyz, tmp_path):
    """A bundle that the one that runs stumbles over is not judged by its own."""
    stumbling = tmp_path / "stumbling.pyz"
    with zipfile.ZipFile(acting_pyz) as source, zipfile.ZipFile(stumbling, "w") as archive:
        for name in source.namelist():
            crash = b"    agent.Agent.golden = golden\n    agent.Agent.judge = lambda *_: 1 / 0\n"
            archive.writestr(name, source.read(name).replace(b"    agent.Agent.golden = golden\n", crash))
    local_device.deploy(make_bundle("first", pyz=stumbling, signing=signing(OLD, sequence=5)), keys=KNOWN)
    stored = sorted(path.name for path in (local_device.root / "store").iterdir())

    with pytest.raises(DeployError, match="ZeroDivisionError"):
        local_device.deploy(make_bundle("second", signing=signing(OLD, sequence=6)))

    assert sorted(path.name for path in (local_device.root / "store").iterdir()) == stored
    assert local_device.running() == "first"


@pytest.mark.slow
def test_damaged_agent_does_not_close_the_device(make_bundle, local_device):
    """Where the one that runs cannot even start, the new one's judges, by the same policy."""
    local_device.deploy(make_bundle("first", signing=signing(OLD, sequence=5)), keys=KNOWN)
    pyz = (local_device.root / "active" / "edgebitd.pyz").resolve()
    pyz.chmod(0o644)
    pyz.write_bytes(b"damaged")

    with pytest.raises(BundleError, match="is not signed"):
        local_device.deploy(make_bundle("unsigned"))
    local_device.deploy(make_bundle("second", signing=signing(OLD, sequence=6)))

    assert any("is damaged" in remark for remark in local_device.reporter.remarks)
    assert local_device.running() == "second"
    assert trust_of(local_device)["floor"] == 6


def agent(device, pyz, verb, *arguments, stdin):
    return subprocess.run(
        [sys.executable, str(pyz), "agent", "--root", str(device), verb, *arguments],
        input=stdin,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("verb", ["judge", "stage"])
def test_agent_called_by_hand_judges_too(make_bundle, acting_pyz, tmp_path, verb):
    """Whoever brings the bundle: the policy is in the file, and the exit code is a bundle's."""
    (tmp_path / "device").mkdir()
    policy = Policy(keys=(OLD.public,), unsigned=False, floor=5)
    (tmp_path / "device" / "trust.json").write_bytes(policy.to_bytes())
    unsigned, older = make_bundle("unsigned"), make_bundle("older", signing=signing(OLD, sequence=4))
    stranger = make_bundle("stranger", signing=signing(STRANGER, sequence=9))
    stripped = Offer(make_bundle("stripped", signing=signing(OLD, sequence=9)).manifest_bytes)

    for offer in (unsigned.offer, older.offer, stranger.offer, stripped):
        done = agent(tmp_path / "device", acting_pyz, verb, f"--key={STRANGER.public}", stdin=offer.to_bytes())
        assert done.returncode == BundleError.exit_code, done.stderr
        assert b"the device takes" in done.stderr and b"Traceback" not in done.stderr
    if verb == "judge":
        good = make_bundle("good", signing=signing(OLD, sequence=5))
        assert (
            OLD.public.id.encode() in agent(tmp_path / "device", acting_pyz, verb, stdin=good.offer.to_bytes()).stdout
        )


def test_damaged_policy_lets_nobody_in(make_bundle, acting_pyz, tmp_path):
    """It says how to mend it, and the status still shows."""
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "trust.json").write_text("{")

    done = agent(tmp_path / "device", acting_pyz, "judge", stdin=make_bundle().offer.to_bytes())

    assert done.returncode == 13 and b"trust.json is not JSON" in done.stderr
    (tmp_path / "device" / "store").mkdir()
    assert b"is not JSON" in agent(tmp_path / "device", acting_pyz, "status", stdin=b"").stdout
