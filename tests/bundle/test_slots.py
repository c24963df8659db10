"""The slots of a device: what each operation leaves, and what a power cut at any step of it leaves."""

import hashlib
import json

import pytest
from signing_keys import make_key, signing

from edgebit.bundle.archive import open_bundle
from edgebit.bundle.manifest import BuildInfo, FileEntry, Manifest, ModelInfo, TargetInfo, bundle_id
from edgebit.bundle.slots import TRIES, Slots
from edgebit.bundle.trust import Policy
from edgebit.errors import BundleError, ConfigError, DeployError

SHARED = b"the library, the same in all"


class PowerCut(Exception):
    """The power went off."""


def put_bundle(root, name, release=None):
    """Put a bundle's files into the store as a deploy does; gives its manifest's bytes."""
    contents = {"model.ebm": name.encode() * 50, "lib/libedgebit.so": SHARED, "bin/edgebit-run": SHARED + b"!"}
    entries = {member: FileEntry(size=len(data), sha256=sha256(data)) for member, data in contents.items()}
    manifest = Manifest(
        name=name,
        edgebit="0.1.0",
        abi=1,
        target=TargetInfo(name="rpi", triple="aarch64-linux-gnu"),
        model=ModelInfo(name=name),
        build=BuildInfo(),
        files=entries,
        release=release,
    )
    (root / "store").mkdir(parents=True, exist_ok=True)
    slots = Slots(root)
    for member, data in contents.items():
        if not (root / "store" / entries[member].sha256).exists():
            (root / "store" / f"{entries[member].sha256}.part").write_bytes(data)
            slots.admit(entries[member])
    return manifest.to_bytes()


def install_signed(root, name, plan, accepted, *, commit=True):
    """Install a signed bundle as a device does that let it in by the keys `accepted`; gives its id."""
    manifest = put_bundle(root, name, plan.release)
    slots = Slots(root)
    slots.stage(manifest, signature=plan.sign(manifest), accepted=[key.public for key in accepted])
    slots.switch(bundle_id(manifest))
    if commit:
        slots.commit(bundle_id(manifest))
    return bundle_id(manifest)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def install(root, name, *, commit=True):
    """Install a bundle as a deploy does; gives its id."""
    manifest = put_bundle(root, name)
    slots = Slots(root)
    slots.stage(manifest)
    slots.switch(bundle_id(manifest))
    if commit:
        slots.commit(bundle_id(manifest))
    return bundle_id(manifest)


def assert_complete(root, allowed):
    """What `active` names is whole, byte for byte, and one of the bundles `allowed`."""
    folder = root / "active"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for member, entry in manifest["files"].items():
        assert sha256((folder / member).read_bytes()) == entry["sha256"]
    assert bundle_id((folder / "manifest.json").read_bytes()) in allowed


def test_install_shares_files_between_slots(tmp_path):
    """Both slots hold hard links to one file in the store."""
    install(tmp_path, "first")
    install(tmp_path, "second")

    links = {path.stat().st_ino for path in tmp_path.glob("s*/*/lib/libedgebit.so")}
    assert links == {(tmp_path / "store" / sha256(SHARED)).stat().st_ino}
    assert (tmp_path / "slots" / "b" / "bin" / "edgebit-run").stat().st_mode & 0o111


def test_links_where_hard_ones_are_forbidden(tmp_path, monkeypatch):
    """As on Android: the store's file is not copied, and each slot is whole through its links, back and forth."""

    def forbidden(path, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.hardlink_to", forbidden)
    first, second = install(tmp_path, "first"), install(tmp_path, "second")

    assert_complete(tmp_path, {second})
    assert not [path for path in tmp_path.glob("slots/*/*/*") if not path.is_symlink()]
    assert (tmp_path / "active" / "bin" / "edgebit-run").stat().st_mode & 0o111
    Slots(tmp_path).rollback()
    assert_complete(tmp_path, {first})
    install(tmp_path, "third")
    assert_complete(tmp_path, {bundle_id((tmp_path / "active" / "manifest.json").read_bytes())})
    assert Slots(tmp_path).remove() == [] and not tmp_path.exists()


def test_commit_throws_away_what_no_slot_needs(tmp_path):
    """After the third bundle, the first one's model is gone, and the library all share is not."""
    for name in ("first", "second", "third"):
        install(tmp_path, name)

    stored = {path.name for path in (tmp_path / "store").iterdir()}
    assert sha256(b"first" * 50) not in stored
    assert {sha256(b"second" * 50), sha256(b"third" * 50), sha256(SHARED)} <= stored


def test_commit_can_keep_the_store(tmp_path):
    """Files on their way for the next bundle are in no slot yet."""
    install(tmp_path, "first", commit=False)
    put_bundle(tmp_path, "second")

    Slots(tmp_path).commit(Slots(tmp_path).active().id, prune=False)

    assert (tmp_path / "store" / sha256(b"second" * 50)).exists()


def test_bundle_on_trial_goes_back_after_its_tries(tmp_path):
    """A bundle that is started more often than it may is refused from then on, and the one before runs."""
    first = install(tmp_path, "first")
    second = install(tmp_path, "second", commit=False)
    slots = Slots(tmp_path)

    started = [slots.starting().id for _ in range(TRIES + 1)]

    assert started == [second] * TRIES + [first]
    assert slots.active().id == first
    assert "did not stay up" in slots.refused()[second]


def test_first_bundle_is_tried_for_ever(tmp_path):
    """With none before it, three power cuts would otherwise leave nothing at all."""
    first = install(tmp_path, "first", commit=False)

    assert {Slots(tmp_path).starting().id for _ in range(TRIES + 5)} == {first}
    assert Slots(tmp_path).refused() == {}


def test_withdrawn_bundle_is_not_refused(tmp_path):
    """It was not its fault; a good bundle is not withdrawn at all."""
    first = install(tmp_path, "first")
    slots = Slots(tmp_path)
    assert slots.withdraw().status == "good"
    second = install(tmp_path, "second", commit=False)

    assert slots.withdraw().id == first

    assert slots.refused() == {}
    assert slots.slots()["b"].status == "staged"
    assert install(tmp_path, "second") == second


def test_good_bundle_may_start_for_ever(tmp_path):
    """Tries are counted on trial only."""
    first = install(tmp_path, "first")

    assert {Slots(tmp_path).starting().id for _ in range(10)} == {first}


def test_refused_bundle_needs_force(tmp_path):
    """What was taken back is not staged again by accident."""
    install(tmp_path, "first")
    second = install(tmp_path, "second", commit=False)
    slots = Slots(tmp_path)
    slots.fail("it said nothing.")
    manifest = put_bundle(tmp_path, "second")

    with pytest.raises(DeployError, match=r"it said nothing\. Build a better one"):
        slots.stage(manifest)

    assert slots.stage(manifest, force=True).id == second
    assert slots.refused() == {}


def test_nothing_is_staged_over_a_trial(tmp_path):
    """While a bundle is on trial the other slot is the way back, and not to be touched."""
    install(tmp_path, "first")
    install(tmp_path, "second", commit=False)

    with pytest.raises(DeployError, match="on trial"):
        Slots(tmp_path).stage(put_bundle(tmp_path, "third"))


def test_commit_of_another_bundle_is_refused(tmp_path):
    """The device may have gone back by itself while the deploy waited."""
    first = install(tmp_path, "first")

    with pytest.raises(DeployError, match=f"returned to bundle {first}"):
        Slots(tmp_path).commit("0123456789abcdef")


def test_sent_file_that_differs_is_thrown_away(tmp_path):
    """And the message has both sums."""
    (tmp_path / "store").mkdir()
    entry = FileEntry(size=3, sha256=sha256(b"abc"))
    part = tmp_path / "store" / f"{entry.sha256}.part"
    part.write_bytes(b"abd")

    with pytest.raises(BundleError, match=sha256(b"abd")):
        Slots(tmp_path).admit(entry)

    assert not part.exists()


def test_stage_without_a_file_is_refused(tmp_path):
    """A slot never becomes half a bundle."""
    manifest = put_bundle(tmp_path, "first")
    (tmp_path / "store" / sha256(SHARED)).unlink()

    with pytest.raises(DeployError, match=r"lib/libedgebit\.so is not in the device's store"):
        Slots(tmp_path).stage(manifest)

    assert Slots(tmp_path).slots() == {}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 2}', '{"schema":1,"slots":{"c":{}},"refused":{}}'])
def test_damaged_state_is_rebuilt(tmp_path, damage):
    """The symlink and the manifests say what is there."""
    first = install(tmp_path, "first")
    (tmp_path / "state.json").write_text(damage)

    Slots(tmp_path).recover()

    assert Slots(tmp_path).active().id == first
    assert Slots(tmp_path).active().status == "good"


def test_damaged_active_slot_gives_way_to_the_other(tmp_path):
    """A file that is missing from the active slot makes the bundle before the active one."""
    first = install(tmp_path, "first")
    install(tmp_path, "second")
    (tmp_path / "slots" / "b" / "model.ebm").unlink()

    assert Slots(tmp_path).starting().id == first


def stage_third(slots, root, ids):
    slots.stage(put_bundle(root, "third"))


def switch_to_third(slots, root, ids):
    Slots(root).stage(put_bundle(root, "third"))
    slots.switch(ids["third"])


def commit_third(slots, root, ids):
    install(root, "third", commit=False)
    slots.commit(ids["third"])


def fail_third(slots, root, ids):
    install(root, "third", commit=False)
    slots.fail("silent")


def withdraw_third(slots, root, ids):
    install(root, "third", commit=False)
    slots.withdraw()


def roll_back(slots, root, ids):
    slots.rollback()


def start_third_too_often(slots, root, ids):
    install(root, "third", commit=False)
    for _ in range(TRIES + 1):
        slots.starting()


# An operation, and the bundles that may run after any part of it.
OPERATIONS = {
    "stage": (stage_third, {"second"}),
    "switch": (switch_to_third, {"second", "third"}),
    "commit": (commit_third, {"third"}),
    "fail": (fail_third, {"second", "third"}),
    "withdraw": (withdraw_third, {"second", "third"}),
    "rollback": (roll_back, {"first", "second"}),
    "starting": (start_third_too_often, {"second", "third"}),
}


def prepare(root):
    """A device with two good bundles, the second running; gives all ids by name."""
    ids = {name: install(root, name) for name in ("first", "second")}
    ids["third"] = bundle_id(put_bundle(root, "third"))
    return ids


@pytest.mark.parametrize("operation", OPERATIONS)
def test_power_cut_at_every_step(tmp_path, operation):
    """Whatever step is the last, `active` is whole, recovery clears up, and the same deploy can be done to its end."""
    act, allowed = OPERATIONS[operation]
    counted = []
    root = tmp_path / "whole"
    ids = prepare(root)
    act(Slots(root, lambda kind, path: counted.append((kind, path.name))), root, ids)
    assert counted

    for last in range(len(counted)):
        root = tmp_path / f"cut-{last}"
        prepare(root)
        left = last

        def cut(kind, path):
            nonlocal left
            if left == 0:
                raise PowerCut
            left -= 1

        with pytest.raises(PowerCut):
            act(Slots(root, cut), root, ids)

        may_run = {ids[name] for name in allowed}
        assert_complete(root, may_run)
        Slots(root).recover()
        assert_complete(root, may_run)
        once = sorted(path.relative_to(root) for path in root.rglob("*"))
        Slots(root).recover()
        assert sorted(path.relative_to(root) for path in root.rglob("*")) == once, "recovery does nothing twice"
        assert not [path for path in once if path.suffix in (".new", ".old")]
        slots = Slots(root)
        if slots.active().status == "trying":
            slots.commit(slots.active().id)
        if slots.active().id != ids["third"]:
            slots.stage(put_bundle(root, "third"), force=True)
            slots.switch(ids["third"])
            slots.commit(ids["third"])
        assert_complete(root, {ids["third"]})


OLD, NEW = make_key(1), make_key(2)
FIRST, HAND_OVER = signing(OLD, sequence=3), signing(OLD, NEW, sequence=4, trust=(NEW,))
PINNED = Policy(keys=(OLD.public,), unsigned=False, floor=3)
HANDED_OVER = Policy(keys=(NEW.public,), unsigned=False, floor=4)


def test_kept_bundle_makes_the_policy(tmp_path):
    """Not the staged one, and not the one on trial; a slot holds what proves whose it is."""
    assert Slots(tmp_path).policy() is None
    install_signed(tmp_path, "first", FIRST, [OLD])
    assert Slots(tmp_path).policy() == PINNED
    second = install_signed(tmp_path, "second", HAND_OVER, [OLD], commit=False)
    assert Slots(tmp_path).policy() == PINNED

    Slots(tmp_path).commit(second)

    assert Slots(tmp_path).policy() == HANDED_OVER
    assert (tmp_path / "trust.json").stat().st_mode & 0o777 == 0o600
    assert open_bundle(tmp_path / "active").signatures[0].id == OLD.public.id


def test_unsigned_bundle_opens_a_new_device_only(tmp_path):
    """The policy says so in the file from then on."""
    install(tmp_path, "first")
    assert Slots(tmp_path).policy() == Policy(keys=(), unsigned=True)

    install_signed(tmp_path, "second", FIRST, [OLD])

    assert Slots(tmp_path).policy() == PINNED


@pytest.mark.parametrize("end", ["withdraw", "fail"])
def test_bundle_that_goes_leaves_the_policy(tmp_path, end):
    """Keys and floor of a bundle that was not kept never hold."""
    install_signed(tmp_path, "first", FIRST, [OLD])
    install_signed(tmp_path, "second", HAND_OVER, [OLD], commit=False)
    slots = Slots(tmp_path)

    slots.withdraw() if end == "withdraw" else slots.fail("silent")

    assert slots.policy() == PINNED


def test_rollback_leaves_the_policy(tmp_path):
    """The bundle before runs although it is below the floor; what it said of keys does not come back."""
    first = install_signed(tmp_path, "first", FIRST, [OLD])
    install_signed(tmp_path, "second", HAND_OVER, [OLD])
    slots = Slots(tmp_path)

    assert slots.rollback().id == first
    slots.commit(first)

    assert slots.policy() == HANDED_OVER


def test_missing_policy_is_made_of_the_signed_bundles(tmp_path):
    """To remove trust.json does not open a device; to damage it closes it."""
    install_signed(tmp_path, "first", FIRST, [OLD])
    install_signed(tmp_path, "second", HAND_OVER, [OLD])
    slots = Slots(tmp_path)

    (tmp_path / "trust.json").unlink()
    assert slots.policy() == HANDED_OVER
    (tmp_path / "trust.json").write_text("{")
    with pytest.raises(ConfigError, match=r"trust\.json is not JSON"):
        slots.policy()
    assert slots.rollback().status == "good"


@pytest.mark.parametrize(("before", "after"), [(None, PINNED), (PINNED, HANDED_OVER)], ids=["first key", "next key"])
def test_power_cut_while_keys_change(tmp_path, before, after):
    """At each step of a commit the policy is the one before or the one after, and a good bundle's word holds."""

    def prepare_trial(root):
        if before is None:
            return install_signed(root, "first", FIRST, [OLD], commit=False)
        install_signed(root, "first", FIRST, [OLD])
        return install_signed(root, "second", HAND_OVER, [OLD], commit=False)

    steps = []
    identity = prepare_trial(tmp_path / "whole")
    Slots(tmp_path / "whole", lambda kind, path: steps.append((kind, path.name))).commit(identity)
    assert ("rename", "trust.json") in steps

    seen = []
    for last in range(len(steps)):
        root, left = tmp_path / f"cut-{last}", iter(range(last))

        def cut(kind, path, left=left):
            if next(left, None) is None:
                raise PowerCut

        prepare_trial(root)
        with pytest.raises(PowerCut):
            Slots(root, cut).commit(identity)

        slots = Slots(root)
        seen.append(slots.policy())
        assert seen[-1] in (before, after)
        slots.recover()
        assert slots.policy() == seen[-1]
        assert not (root / "trust.json.new").exists()
        if slots.active().status == "good":
            assert slots.policy() == after
        slots.commit(identity)
        assert slots.policy() == after
    assert before in seen and after in seen


def test_remove_takes_all_but_strange_files(tmp_path):
    """What edgebit did not put there stays, and is named."""
    root = tmp_path / "device"
    install(root, "first")
    mine = [root / "notes.txt", root / "store" / "photo.jpg", root / "state" / "letter", root / "run" / "a" / "b"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (root / "state" / "adapters").mkdir()
    for end in ("", ".part", ".damaged"):
        (root / "state" / "adapters" / f"garage@{'0' * 64}{end}").write_text("ours")

    assert Slots(root).remove() == ["notes.txt", "run", "state", "store"]

    assert sorted(path for path in root.rglob("*") if path.is_file()) == sorted(mine)
