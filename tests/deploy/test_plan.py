"""Plans are pure: what a deploy would do on a device of which only a description exists."""

import dataclasses
from types import SimpleNamespace

import pytest
from signing_keys import MADE, make_key, signing

from edgebit.bundle.manifest import BuildInfo, FileEntry, Manifest, ModelInfo, TargetInfo, bundle_id
from edgebit.bundle.trust import Offer, Policy
from edgebit.deploy.plan import (
    InstallOptions,
    KnownKeys,
    bytes_to_send,
    duration,
    plan_deploy,
    plan_install,
    plan_judgement,
    refuse_slow,
)
from edgebit.device_probe import DeviceState, Python, parse_probe
from edgebit.errors import BundleError, ConfigError, DeployError

SIZES = {"edgebitd.pyz": 1_000, "model.ebm": 50_000_000, "lib/libedgebit.so": 90_000}
FILES = {name: FileEntry(size=size, sha256=f"{n:064x}") for n, (name, size) in enumerate(SIZES.items())}
MANIFEST = Manifest(
    name="chat",
    edgebit="0.1.0",
    abi=1,
    target=TargetInfo(name="rpi", triple="aarch64-linux-gnu"),
    model=ModelInfo(name="chat"),
    build=BuildInfo(),
    files=FILES,
)
ID = "0123456789abcdef"
OPTIONS = InstallOptions(settings={"mqtt": {"url": "mqtt://broker"}})
FRESH = DeviceState(
    root=".local/share/edgebit",
    arch="aarch64",
    machine="aarch64",
    memory_bytes=1 << 30,
    free_bytes=8 << 30,
    python=Python((3, 11, 2), "/usr/bin/python3", ()),
    slots={},
    refused={},
    stored={},
)
RUNNING = dataclasses.replace(
    FRESH,
    has_root=True,
    configured=True,
    active="a",
    slots={"a": {"id": "an-older-one", "status": "good"}},
    stored={FILES["lib/libedgebit.so"].sha256: SIZES["lib/libedgebit.so"]},
)


def actions(state, options=OPTIONS, identity=ID):
    return [step.action for step in plan_install(MANIFEST, identity, state, options)]


def test_fresh_device_gets_everything():
    """The agent goes first, the model last; the switch comes after the self-test, the commit after the answer."""
    steps = plan_install(MANIFEST, ID, FRESH, OPTIONS)

    assert [step.name for step in steps if step.action == "send"] == ["edgebitd.pyz", "lib/libedgebit.so", "model.ebm"]
    assert bytes_to_send(steps) == sum(SIZES.values())
    assert [step.action for step in steps if step.action != "send"] == [
        "prepare", "stage", "selftest", "configure", "switch", "start", "check", "commit",
    ]  # fmt: skip


def test_running_device_gets_what_it_lacks():
    """What is there is checked, by the agent, which is sent before; the old daemon runs until the new one starts."""
    options = InstallOptions()

    assert actions(RUNNING, options) == [
        "send", "verify", "send", "stage", "selftest", "switch", "start", "check", "commit",
    ]  # fmt: skip


def test_interrupted_copy_goes_on():
    """The bytes that an earlier try left are not sent again."""
    state = dataclasses.replace(FRESH, stored={f"{FILES['model.ebm'].sha256}.part": 49_000_000})

    steps = plan_install(MANIFEST, ID, state, OPTIONS)

    assert next(step.bytes for step in steps if step.name == "model.ebm") == 1_000_000
    assert "the rest of 50.0 MB" in next(step.line for step in steps if step.name == "model.ebm")


def test_what_is_there_is_only_started_again():
    """Unless forced."""
    state = dataclasses.replace(RUNNING, slots={"a": {"id": ID, "status": "good"}})

    assert actions(state) == ["configure", "ensure", "check", "commit"]
    assert actions(state, InstallOptions()) == ["ensure", "check"]
    assert "switch" in actions(state, dataclasses.replace(OPTIONS, force=True))


def test_trial_that_was_cut_off_is_settled_first():
    """Before anything touches the slots."""
    state = dataclasses.replace(RUNNING, slots={"a": {"id": "an-older-one", "status": "trying"}})

    found = actions(state)

    assert found.index("settle") < found.index("stage")


@pytest.mark.parametrize(
    ("change", "options", "promised"),
    [
        ({"arch": "x86_64", "machine": "x86_64"}, OPTIONS, "built for aarch64 (rpi), the device's programs are x86_64"),
        ({"arch": "armv7l"}, OPTIONS, "a 32-bit system on a 64-bit CPU"),
        ({"python": None}, OPTIONS, "no python3"),
        ({"python": Python((3, 9, 2), "python3", ())}, OPTIONS, "has Python 3.9.2, the daemon needs 3.11"),
        ({"python": Python((3, 11, 2), "python3", ("ctypes",))}, OPTIONS, "Python lacks ctypes"),
        ({"noexec": True}, OPTIONS, "mounted noexec"),
        ({"free_bytes": 60_000_000}, OPTIONS, "60.0 MB free"),
        ({"memory_bytes": 100_000_000}, OPTIONS, "the device 100 MB of memory"),
        ({"refused": {ID: "it was silent"}}, OPTIONS, "taken back on this device: it was silent"),
        ({}, dataclasses.replace(OPTIONS, service="systemd"), "systemd does not run on this device"),
        ({"in_the_way": "/x/file"}, OPTIONS, "/x/file on the device is no folder"),
        ({"strange": ("photos",)}, OPTIONS, "is not edgebit's: it holds photos"),
        ({}, InstallOptions(), "does not know its broker yet"),
    ],
)
def test_unfit_device_is_refused(change, options, promised):
    """Before a byte is sent, with the reason."""
    with pytest.raises(DeployError) as refused:
        plan_install(MANIFEST, ID, dataclasses.replace(FRESH, **change), options)

    assert promised in str(refused.value)


def test_hopeless_copy_is_refused():
    """Over an hour; the error says how long, and where the largest file is looked for when it comes another way."""
    steps = plan_install(MANIFEST, ID, FRESH, OPTIONS)
    refuse_slow(steps, 3600, MANIFEST, FRESH)

    with pytest.raises(DeployError) as refused:
        refuse_slow(steps, 6_200, MANIFEST, FRESH)

    assert "sending 50.1 MB takes about 2 h" in str(refused.value)
    assert f"~/.local/share/edgebit/store/{FILES['model.ebm'].sha256}" in str(refused.value)
    assert "--yes-slow" in str(refused.value)
    brought = dataclasses.replace(FRESH, has_root=True, stored={FILES["model.ebm"].sha256: SIZES["model.ebm"]})
    assert bytes_to_send(plan_install(MANIFEST, ID, brought, OPTIONS)) == 91_000


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (101, "2 min"), (6001, "2 h"), (139e3, "39 h")]
)
def test_times_are_said_as_people_say_them(seconds, text):
    """To two figures or so."""
    assert duration(seconds) == text


OLD, NEW = make_key(1), make_key(2)
KNOWN = KnownKeys({"home": OLD.public})
MADE_S = int(MADE.timestamp())


def judgement(policy, *keys, known=KNOWN, clock_s=MADE_S + 60, **says):
    """The line that a plan has for a bundle signed by `keys`, on a device with a policy."""
    plan = signing(*keys, **says) if keys else None
    manifest = dataclasses.replace(MANIFEST, release=plan.release if plan else None)
    data = manifest.to_bytes()
    trust = " ".join(policy.to_bytes().decode().splitlines()) if policy else ""
    state = dataclasses.replace(FRESH, trust=trust, clock_s=clock_s)
    options = dataclasses.replace(OPTIONS, known=known)
    return plan_judgement(Offer(data, plan.sign(data) if plan else None), manifest.release, state, options).line


def test_plan_says_whom_the_device_will_trust():
    """Before anything is sent: a first key, the same again, another one, none."""
    pinned = Policy(keys=(OLD.public,), unsigned=False, floor=3)

    assert "any from now on: nothing proves who built it" in judgement(None)
    assert "as its policy allows" in judgement(Policy(keys=(), unsigned=True))
    first = f"by key {OLD.public.id} (home) and sequence 5; from then on the device takes only bundles signed by"
    assert first in judgement(None, OLD, sequence=5)
    assert judgement(pinned, OLD, sequence=5).endswith(f"by key {OLD.public.id} (home) and sequence 5")
    handed = f"then the device trusts key {NEW.public.id} instead of {OLD.public.id} (home)"
    assert handed in judgement(pinned, OLD, NEW, sequence=5, trust=(NEW,))


@pytest.mark.parametrize(
    ("policy", "keys", "says", "promised"),
    [
        (Policy(keys=(OLD.public,), unsigned=False), (), {}, "is not signed"),
        (None, (NEW,), {}, f"signed by key {NEW.public.id}, and the device takes only"),
        (Policy(keys=(NEW.public,), unsigned=False), (OLD,), {}, f"only bundles signed by key {NEW.public.id}"),
        (None, (OLD,), {"known": KnownKeys()}, "Name its public key"),
        (None, (), {"known": KnownKeys(KNOWN.keys, demanded=True)},
         f"signed by key {OLD.public.id} is wanted, and this one is not signed"),
        (Policy(keys=(NEW.public,), unsigned=False), (NEW,), {"known": KnownKeys(KNOWN.keys, demanded=True)},
         f"signed by key {OLD.public.id} is wanted, and this one is signed by key {NEW.public.id}"),
        (None, (OLD,), {"expires": "1d", "clock_s": MADE_S + 86_400}, "expired at 2026-03-02 12:00"),
        (None, (OLD,), {"expires": "1d", "clock_s": 0}, "the device's clock is wrong"),
    ],
)  # fmt: skip
def test_plan_refuses_what_the_device_would(policy, keys, says, promised):
    """And what --trust does not want, whatever the device says."""
    with pytest.raises(BundleError) as refused:
        judgement(policy, *keys, **says)

    assert promised in str(refused.value)


def signed_bundle(*keys, **says):
    """What a plan asks of a bundle, signed by `keys`."""
    signed = signing(*keys, **says)
    manifest = dataclasses.replace(MANIFEST, release=signed.release)
    data = manifest.to_bytes()
    return SimpleNamespace(manifest=manifest, id=bundle_id(data), offer=Offer(data, signed.sign(data)))


@pytest.mark.parametrize("python", [FRESH.python, None])
def test_bundle_that_runs_is_not_judged_again(python):
    """After a roll-back it is below the floor: nothing comes in. Forced, the device looks; another one is refused."""
    bundle, other = signed_bundle(OLD, sequence=4), signed_bundle(OLD, sequence=3)
    files = {**FILES, "bin/edgebit-run": FileEntry(size=9, sha256=f"{9:064x}")}
    manifest = dataclasses.replace(bundle.manifest, files=files)
    bundle.manifest = other.manifest = manifest
    policy = Policy(keys=(NEW.public,), unsigned=False, floor=5).to_bytes().decode()
    slots = {"a": {"id": bundle.id, "status": "good"}}
    state = dataclasses.replace(RUNNING, python=python, slots=slots, trust=" ".join(policy.splitlines()))

    assert plan_deploy(bundle, state, InstallOptions())[0].action in ("ensure", "verify")
    forced = plan_deploy(bundle, state, InstallOptions(force=True))
    assert forced[0].line == "let the bundle in again, if it is the one that runs, byte for byte"
    with pytest.raises(BundleError, match="only bundles signed by key"):
        plan_deploy(other, state, InstallOptions())
    on_trial = dataclasses.replace(state, slots={"a": {"id": bundle.id, "status": "trying"}})
    with pytest.raises(BundleError, match="only bundles signed by key"):
        plan_deploy(bundle, on_trial, InstallOptions())
    with pytest.raises(BundleError, match="is wanted, and this one is signed by"):
        plan_deploy(bundle, state, InstallOptions(known=KnownKeys({"new": NEW.public}, demanded=True)))


def test_damaged_policy_is_said_before_anything_is_sent():
    """Nobody is let in by it."""
    with pytest.raises(ConfigError, match=r"trust\.json on the device is not JSON"):
        plan_judgement(Offer(b"{}"), None, dataclasses.replace(FRESH, trust="{"), OPTIONS)


def test_probe_is_read():
    """The script's lines become facts; the newest Python is taken."""
    state = parse_probe(
        "root x\nmachine aarch64\nelf b700\npage_bytes 16384\nmemory_kib 1024\nfree_kib 7\nnoexec 1\n"
        "python 3.9.2 /usr/bin/python3\npython 3.13.1 /usr/local/bin/python3.13 ssl\nhas_root 1\nactive slots/b\n"
        'state {"schema": 1, "slots": {"b": {"id": "x", "status": "good"}}, "refused": {}}\nstored 12 abc.part\nend 1\n'
    )

    assert (state.arch, state.page_bytes, state.memory_bytes, state.free_bytes) == ("aarch64", 16384, 1 << 20, 7168)
    assert state.noexec and state.has_root and not state.configured
    assert state.python == Python((3, 13, 1), "/usr/local/bin/python3.13", ("ssl",))
    assert (state.active, state.stored) == ("b", {"abc.part": 12})


def test_32_bit_programs_under_a_64_bit_kernel_are_seen():
    """What counts is what the device's programs are."""
    assert parse_probe("machine aarch64\nelf 2800\nend 1\n").arch == "armv7l"


def test_damaged_state_is_no_fact():
    """The agent rebuilds it; the probe does not fail for it."""
    assert parse_probe('state {"slots": [1]}\nactive slots/a\nend 1\n').slots == {}
