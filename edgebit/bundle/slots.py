"""The two slots of a device: where bundles lie there, which one runs, and how it changes without a moment of neither.

    store/<sha256>        every file once, by content
    slots/a, slots/b      a bundle each: links into the store, hard where that is allowed, and manifest.json
    active -> slots/a     the one that runs; changed by rename(2) alone
    state.json            what is known about the slots, and the bundles that were taken back
    trust.json            whose bundles are taken (trust.py); changed when a bundle is kept

Every operation may be cut off at any step, by a crash or a power cut: `active` names a complete slot before, between
and after its steps, and the next operation clears what was left. Standard library only: this runs on the device.
"""

import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from edgebit.bundle.manifest import (
    KEYS_NAME,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    bundle_id,
    parse_manifest,
)
from edgebit.bundle.signature import PublicKey, parse_public_key
from edgebit.bundle.trust import POLICY_NAME, Offer, Policy, parse_policy, policy_after, policy_of
from edgebit.errors import BundleError, DeployError

STATE_SCHEMA = 1
TRIES = 3  # starts that a bundle on trial gets before the device returns to the one before

Status = Literal["staged", "trying", "good", "bad"]
Name = Literal["a", "b"]

_CHUNK = 1 << 20
STORED = re.compile(r"[0-9a-f]{64}(\.part(\.z)?)?")  # what a file of the store is called, a partial one too
_PREFIX = re.compile(r"[0-9a-f]{64}\.(kv|[0-9]+\.new)")  # a file of the prefix cache, an unfinished one too
# What the daemon writes down: its journal, which holds what was asked and answered, its keys, its log of refusals, ...
_STATE = re.compile(
    r"(connection|journal|home_assistant|(local|name)\.key)(\.part)?|daemon\.lock|security\.log(\.[0-9]+)?"
)
_ADAPTER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@[0-9a-f]{64}(\.part|\.damaged)?")
_HISTORY = re.compile(r"[0-9]{8,}\.ebh")  # of figures
_STATE_FOLDERS = (
    ("state", _STATE),
    ("state/prefixes", _PREFIX),
    ("state/history", _HISTORY),
    ("state/adapters", _ADAPTER),
)
_OWN_FILES = (
    "active",
    "state.json",
    POLICY_NAME,
    "edgebitd.toml",
    "edgebitd.toml.new",
    "mqtt.password",
    "mqtt.password.new",
    *(f"run/{name}" for name in ("edgebitd.log", "edgebitd.log.1", "edgebitd.pid", "service")),
    *(f"run/{name}" for name in ("slots.lock", "supervisor.lock", "gate.lock", "service.new")),
)
_LEFTOVERS = (
    "slots/a.new",
    "slots/b.new",
    "slots/a.old",
    "slots/b.old",
    "active.new",
    "state.json.new",
    f"{POLICY_NAME}.new",
)
OWN_NAMES = frozenset(
    {"state", "store", *(name.partition("/")[0] for name in (*_OWN_FILES, *_LEFTOVERS))}
)  # in the root folder


@contextmanager
def locked(root: Path, wait_s: float | None = None) -> Iterator[None]:
    """Nobody else changes the slots of `root` meanwhile.

    Raises TimeoutError, an OSError, where somebody else holds them for longer than `wait_s`.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    (root / "run").mkdir(exist_ok=True)
    handle = os.open(root / "run" / "slots.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if wait_s is None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        else:
            _lock_within(handle, wait_s)
        yield
    finally:
        os.close(handle)


def _lock_within(handle: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"another deploy holds the slots for longer than {wait_s:g} s") from None
            time.sleep(0.05)
        else:
            return


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot that holds a bundle."""

    name: Name
    path: Path
    id: str  # of the bundle
    status: Status
    tries_left: int  # starts left while it is on trial


class Slots:
    """The slots under a device's root folder. Not for two processes at once: the caller holds a lock.

    `before` is called with the kind and the path of every change to the file system, before it is made: tests cut the
    power there.
    """

    def __init__(self, root: Path, before: Callable[[str, Path], None] = lambda kind, path: None) -> None:
        self.root = root
        self._before = before

    # What is there

    def active(self) -> Slot | None:
        """The slot that runs, or None where there is none or it is incomplete."""
        return self.slots().get(name) if (name := self._active_name()) else None

    def slots(self) -> dict[Name, Slot]:
        """The complete slots by name."""
        state = self._read_state()
        found: dict[Name, Slot] = {}
        for name in _names():
            known, path = state["slots"].get(name), self.root / "slots" / name
            if known is not None and self._held_id(path) == known["id"]:
                found[name] = Slot(name, path, known["id"], known["status"], known.get("tries_left", 0))
        return found

    def previous(self) -> Slot | None:
        """The slot that a roll-back would return to."""
        name = self._active_name()
        return next((slot for slot in self.slots().values() if slot.name != name and slot.status == "good"), None)

    def refused(self) -> dict[str, str]:
        """Bundles that were taken back here: id -> why."""
        return dict(self._read_state()["refused"])

    def manifest(self, slot: Slot) -> Manifest:
        """What the slot holds."""
        return parse_manifest((slot.path / MANIFEST_NAME).read_bytes(), f"{slot.path / MANIFEST_NAME}")

    def offer(self, slot: Slot) -> Offer:
        """The slot's bundle as it was let in: its manifest and its signature."""
        signature = slot.path / SIGNATURE_NAME
        return Offer((slot.path / MANIFEST_NAME).read_bytes(), signature.read_bytes() if signature.is_file() else None)

    def accepted(self, slot: Slot) -> tuple[PublicKey, ...]:
        """The keys that the slot's bundle was let in by."""
        place = slot.path / KEYS_NAME
        lines = place.read_text(encoding="ascii").splitlines() if place.is_file() else []
        return tuple(parse_public_key(line, str(place)) for line in lines)

    def policy(self) -> Policy | None:
        """Whose bundles are taken here; None where no bundle was ever kept.

        Raises ConfigError for a trust.json that is damaged. One that is missing is what the signed bundles make of it.
        """
        place = self.root / POLICY_NAME
        try:
            return parse_policy(place.read_bytes(), str(place))
        except FileNotFoundError:
            pass
        good = (slot for slot in self.slots().values() if slot.status == "good")
        return policy_of((self.manifest(slot).release, self.accepted(slot)) for slot in good)

    # The store

    def missing(self, manifest: Manifest) -> list[str]:
        """Sums of the manifest's files that the store lacks. Reads what is there; a damaged file is thrown away."""
        lacking = []
        for entry in {entry.sha256: entry for entry in manifest.files.values()}.values():
            place = self.root / "store" / entry.sha256
            if _sum(place) != entry:
                if place.exists():
                    self._remove(place)
                lacking.append(entry.sha256)
        return lacking

    def admit(self, entry: FileEntry) -> None:
        """Take store/<sha256>.part into the store, once its bytes are checked and on the disk.

        Raises BundleError where they differ; the part is thrown away then, so that the next try begins anew.
        """
        store = self.root / "store"
        part, place = store / f"{entry.sha256}.part", store / entry.sha256
        if not part.exists() and _sum(place) == entry:
            return
        found = _sum(part)
        if found != entry:
            if found is not None:
                self._remove(part)
            got = f"{found.size} bytes with SHA-256 {found.sha256}" if found else "nothing"
            raise BundleError(
                f"sent {entry.size} bytes with SHA-256 {entry.sha256}, the device has {got}. Deploy again"
            )
        self._before("chmod", part)
        part.chmod(0o444)
        _sync(part)
        self._rename(part, place)

    def prune(self) -> int:
        """Throw away what no slot holds; gives the bytes that became free."""
        kept = {
            entry.sha256
            for name in _names()
            if (manifest := self._read_manifest(self.root / "slots" / name))
            for entry in manifest.files.values()
        }
        store, freed = self.root / "store", 0
        for place in sorted(store.iterdir()) if store.is_dir() else []:
            if STORED.fullmatch(place.name) and place.name not in kept:
                freed += place.stat().st_size
                self._remove(place)
        return freed

    # Changes

    def stage(
        self,
        manifest_bytes: bytes,
        *,
        force: bool = False,
        signature: bytes | None = None,
        accepted: Sequence[PublicKey] = (),
    ) -> Slot:
        """Lay a bundle, whose files are all in the store, into the slot that does not run.

        signature, accepted: its manifest.sig, and the keys that it was let in by (trust.judge).
        Raises DeployError for a bundle that was taken back here (unless forced), files that the store lacks, and while
        another bundle is on trial.
        """
        self.recover()
        manifest, identity = parse_manifest(manifest_bytes, MANIFEST_NAME), bundle_id(manifest_bytes)
        active = self.active()
        if active and active.status == "trying":
            raise DeployError(f"bundle {active.id} is on trial here: commit it or take it back first")
        state = self._read_state()
        if (reason := state["refused"].get(identity)) and not force:
            raise DeployError(
                f"bundle {identity} was taken back here before: {reason}. Build a better one, or deploy with --force"
            )
        name: Name = "b" if active and active.name == "a" else "a"
        place = self.root / "slots" / name
        new, old = place.with_name(f"{name}.new"), place.with_name(f"{name}.old")
        if state["slots"].pop(name, None) is not None:
            self._write_state(state)
        if place.exists():
            self._rename(place, old)
            self._remove_tree(old)
        beside = {MANIFEST_NAME: manifest_bytes}
        if signature is not None:
            beside[SIGNATURE_NAME] = signature
            beside[KEYS_NAME] = "".join(f"{key}\n" for key in accepted).encode()
        self._fill(new, manifest, beside)
        self._rename(new, place)
        state["refused"].pop(identity, None)
        state["slots"][name] = {"id": identity, "status": "staged"}
        self._write_state(state)
        return self.slots()[name]

    def switch(self, identity: str) -> Slot:
        """Make the staged bundle the active one, on trial for TRIES starts.

        Raises DeployError where no slot holds it.
        """
        self.recover()
        active = self.active()
        if active and active.id == identity:
            return active
        slot = next((slot for slot in self.slots().values() if slot.id == identity), None)
        if slot is None or slot.status == "bad":
            raise DeployError(f"bundle {identity} is not staged here: another deploy came between. Deploy it again")
        self._set(slot, "trying", TRIES)
        self._point(slot)
        return self._must_be_active()

    def commit(self, identity: str, *, prune: bool = True) -> Slot:
        """The active bundle has proved itself: it stays, and what it says of keys holds from now on.

        What no slot needs any more is thrown away, if `prune`.

        Raises DeployError where another bundle is active: the device went back by itself meanwhile.
        """
        self.recover()
        active = self._must_be_active()
        if active.id != identity:
            raise DeployError(f"the device returned to bundle {active.id} by itself")
        if active.status != "good":
            before = self.policy()
            after = policy_after(before, self.manifest(active).release, self.accepted(active))
            if after != before:
                self._write_policy(after)  # first: a bundle is good only once its word holds
            self._set(active, "good")
        if prune:
            self.prune()
        return self._must_be_active()

    def fail(self, reason: str) -> Slot | None:
        """The active bundle is no good: refuse it from now on, and return to the one before, if there is one."""
        self.recover()
        active = self._must_be_active()
        state = self._read_state()
        state["slots"][active.name] = {"id": active.id, "status": "bad"}
        state["refused"][active.id] = reason.rstrip(".")  # other sentences go on from it
        self._write_state(state)
        return self._leave_bad()

    def withdraw(self) -> Slot | None:
        """Return to the bundle before, if there is one, without a word against the one on trial: it was not its fault.

        Does nothing to a bundle that is good already. Gives the slot that is active now.
        """
        self.recover()
        active = self.active()
        if active is None or active.status != "trying":
            return active
        self._leave_bad()
        self._set(active, "staged")
        return self.active()

    def rollback(self) -> Slot:
        """Return to the bundle before; the present one stays in its slot, so that one can go forward again.

        Raises DeployError where there is none.
        """
        self.recover()
        previous, active = self.previous(), self.active()
        if previous is None:
            raise DeployError("there is no bundle before this one on the device. Deploy the one you want")
        if active and active.status == "trying":
            self._set(active, "staged")
        self._point(previous)
        return self._must_be_active()

    def starting(self) -> Slot:
        """To be called before each start of the daemon: counts the tries of a bundle on trial, and ends the trial.

        A bundle with none before it is tried for ever: three power cuts are no reason to have nothing at all.
        Gives the slot to start. Raises DeployError where none is left.
        """
        self.recover()
        active = self._must_be_active()
        if active.status == "trying" and active.tries_left > 0:
            self._set(active, "trying", active.tries_left - 1)
        elif active.status == "trying" and self.previous() is not None:
            self.fail(f"did not stay up in {TRIES} starts")
        return self._must_be_active()

    def recover(self) -> None:
        """Clear up after an operation that was cut off. Does nothing when there is nothing to do."""
        for leftover in _LEFTOVERS:
            place = self.root / leftover
            if place.is_dir() and not place.is_symlink():
                self._remove_tree(place)
            elif place.is_symlink() or place.exists():
                self._remove(place)
        if not (self.root / "slots").is_dir():
            return
        state, active = self._read_state(), self._active_name()
        kept: dict[str, Any] = {}
        for name in _names():
            path = self.root / "slots" / name
            known, held = state["slots"].get(name), self._held_id(path)
            if known and known["id"] == held:
                kept[name] = {"id": held, "status": "staged"} if _is_stale(known, name, active) else known
            elif name == active and held:
                kept[name] = {"id": held, "status": "good"}
            elif name != active and path.exists():
                self._remove_tree(path)
        if kept != state["slots"]:
            self._write_state({**state, "slots": kept})
        if active and kept.get(active, {"status": "bad"})["status"] == "bad":
            self._leave_bad()

    def remove(self, *, keep: tuple[str, ...] = ()) -> list[str]:
        """Take what edgebit put there off the device, but for the names in `keep`; gives what was left in the folder.

        A file that is none of edgebit's stays, in its folders too.
        """
        stored = [place for place in (self.root / "store").glob("*") if STORED.fullmatch(place.name)]
        kept = [
            place
            for folder, names in _STATE_FOLDERS
            for place in (self.root / folder).glob("*")
            if names.fullmatch(place.name)
        ]
        for place in [*(self.root / name for name in (*_LEFTOVERS, *_OWN_FILES)), *stored, *kept]:
            if place.name not in keep and (place.is_symlink() or place.is_file()):
                self._remove(place)
        for name in ("slots/a", "slots/b", "settings.before", "settings.before.new", *_LEFTOVERS):
            if (place := self.root / name).is_dir() and not place.is_symlink():
                self._remove_tree(place)
        for name in ("slots", "store", "run", "state/prefixes", "state/history", "state/adapters", "state"):
            if (place := self.root / name).is_dir() and not place.is_symlink() and not any(place.iterdir()):
                place.rmdir()
        left = sorted(place.name for place in self.root.iterdir()) if self.root.is_dir() else []
        if not left and self.root.is_dir():
            self.root.rmdir()
        return left

    # How

    def _leave_bad(self) -> Slot | None:
        """Let `active` name the slot before, or nothing where there is none."""
        previous = self.previous()
        if previous is None:
            self._remove(self.root / "active")
            return None
        self._point(previous)
        return previous

    def _must_be_active(self) -> Slot:
        active = self.active()
        if active is None:
            raise DeployError(f"no bundle is active under {self.root}. Deploy one")
        return active

    def _active_name(self) -> Name | None:
        try:
            target = (self.root / "active").readlink()
        except OSError:
            return None
        return next((name for name in _names() if target == Path("slots") / name), None)

    def _held_id(self, path: Path) -> str | None:
        """The id of the bundle that lies complete in `path`."""
        manifest = self._read_manifest(path)
        if manifest is None:
            return None
        for name, entry in manifest.files.items():
            try:
                found = (path / name).stat()
            except OSError:
                return None
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
                return None
        return bundle_id((path / MANIFEST_NAME).read_bytes())

    def _read_manifest(self, path: Path) -> Manifest | None:
        try:
            return parse_manifest((path / MANIFEST_NAME).read_bytes(), str(path / MANIFEST_NAME))
        except (OSError, BundleError):
            return None

    def _fill(self, folder: Path, manifest: Manifest, beside: Mapping[str, bytes]) -> None:
        self._make_folder(folder)
        folders = {folder}
        for name, entry in sorted(manifest.files.items()):
            place, stored = folder / name, self.root / "store" / entry.sha256
            if not stored.is_file() or stored.stat().st_size != entry.size:
                raise DeployError(f"{name} is not in the device's store: it was not sent. Deploy again")
            for parent in reversed(place.relative_to(folder).parents[:-1]):
                if folder / parent not in folders:
                    self._make_folder(folder / parent)
                    folders.add(folder / parent)
            self._before("link", place)
            try:
                place.hardlink_to(stored)
            except OSError:  # Android forbids hard links
                place.symlink_to(os.path.relpath(stored, place.parent))
            if name.startswith("bin/"):
                self._before("chmod", place)
                place.chmod(0o555)
        for name, data in beside.items():
            self._write(folder / name, data)
        for made in folders:
            _sync(made)

    def _point(self, slot: Slot) -> None:
        """Let `active` name the slot: one rename."""
        new = self.root / "active.new"
        self._before("symlink", new)
        new.unlink(missing_ok=True)
        new.symlink_to(Path("slots") / slot.name)
        self._rename(new, self.root / "active")

    def _set(self, slot: Slot, status: Status, tries_left: int | None = None) -> None:
        state = self._read_state()
        state["slots"][slot.name] = {"id": slot.id, "status": status}
        if tries_left is not None:
            state["slots"][slot.name]["tries_left"] = tries_left
        self._write_state(state)

    def _read_state(self) -> dict[str, Any]:
        """state.json, or an empty one where there is none or it was damaged: recover() rebuilds what it can."""
        try:
            state = json.loads((self.root / "state.json").read_bytes())
        except (OSError, ValueError):
            state = None
        if _is_state(state):
            return cast(dict[str, Any], state)
        return {"schema": STATE_SCHEMA, "slots": {}, "refused": {}}

    def _write_state(self, state: dict[str, Any]) -> None:
        new = self.root / "state.json.new"
        self._write(new, (json.dumps(state, indent=1, sort_keys=True) + "\n").encode())
        self._rename(new, self.root / "state.json")

    def _write_policy(self, policy: Policy) -> None:
        new = self.root / f"{POLICY_NAME}.new"
        self._write(new, policy.to_bytes())
        self._before("chmod", new)
        new.chmod(0o600)
        self._rename(new, self.root / POLICY_NAME)

    def _write(self, path: Path, data: bytes) -> None:
        self._before("write", path)
        path.write_bytes(data)
        self._before("sync", path)
        _sync(path)

    def _rename(self, source: Path, to: Path) -> None:
        self._before("rename", to)
        source.replace(to)
        self._before("sync", to.parent)
        _sync(to.parent)

    def _make_folder(self, path: Path) -> None:
        self._before("mkdir", path)
        path.mkdir(parents=True)

    def _remove(self, path: Path) -> None:
        self._before("unlink", path)
        path.unlink(missing_ok=True)

    def _remove_tree(self, path: Path) -> None:
        for place in sorted(path.iterdir()):
            if place.is_dir() and not place.is_symlink():
                self._remove_tree(place)
            else:
                self._remove(place)
        self._before("rmdir", path)
        path.rmdir()


def _names() -> tuple[Name, Name]:
    return ("a", "b")


def _is_stale(known: dict[str, Any], name: Name, active: Name | None) -> bool:
    """Whether a slot is said to be on trial although another one runs: the switch was cut off before its rename."""
    return bool(known["status"] == "trying" and name != active)


def _is_state(state: object) -> bool:
    if not isinstance(state, dict) or state.get("schema") != STATE_SCHEMA:
        return False
    slots, refused = state.get("slots"), state.get("refused")
    return (
        isinstance(slots, dict)
        and isinstance(refused, dict)
        and all(
            name in _names()
            and isinstance(slot, dict)
            and isinstance(slot.get("id"), str)
            and slot.get("status") in ("staged", "trying", "good", "bad")
            and isinstance(slot.get("tries_left", 0), int)
            for name, slot in slots.items()
        )
    )


def _sum(path: Path) -> FileEntry | None:
    """Size and SHA-256 of a file, or None where there is none."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        return None
    return FileEntry(size=size, sha256=digest.hexdigest())


def _sync(path: Path) -> None:
    """Have a file or folder on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
