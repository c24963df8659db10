"""Transfers that are spoilt on the way, and disks that take nothing: what is active is whole, and it answers."""

import hashlib
import json
import os
import random
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from edgebit.deploy import sending
from edgebit.deploy.install import Installation, install
from edgebit.deploy.plan import InstallOptions, plan_install
from edgebit.device_probe import probe
from edgebit.errors import EdgebitError
from edgebit.transport import Section
from edgebit.transport.local import LocalTransport

CHUNK = 1024


class NoisyLine(LocalTransport):
    """A folder of this machine behind a slow line that spoils one chunk of a kilobyte in a hundred, in some way."""

    bytes_per_s = 11_500

    def __init__(self, root, dice, share=0.01):
        super().__init__(root)
        self._dice = dice
        self._share = share
        self.spoilt = Counter()

    def put(self, source, remote, progress=None):
        with source.path.open("rb") as file:
            file.seek(source.offset)
            data = file.read(source.size)
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        for number in range(len(chunks)):
            if self._dice.random() < self._share:
                self._spoil(chunks, number)
        Path(remote).write_bytes(b"".join(chunks))
        if progress is not None:
            progress(len(data))

    def _spoil(self, chunks, number):
        how = self._dice.choice(("flipped", "lost", "twice", "cut short", "out of order"))
        self.spoilt[how] += 1
        chunk = chunks[number]
        if how == "flipped" and chunk:
            at = self._dice.randrange(len(chunk))
            chunks[number] = chunk[:at] + bytes([chunk[at] ^ 1 << self._dice.randrange(8)]) + chunk[at + 1 :]
        elif how == "lost":
            chunks[number] = b""
        elif how == "twice":
            chunks[number] = chunk + chunk
        elif how == "cut short":
            chunks[number:] = [b""] * (len(chunks) - number)
        elif number + 1 < len(chunks):
            chunks[number], chunks[number + 1] = chunks[number + 1], chunk


class FullDisk:
    """A small file system of its own that can be filled up."""

    def __init__(self, folder):
        self.folder = folder

    def leave(self, room):
        """Fill it up to `room` bytes; None: empty it of what fills it."""
        ballast = self.folder / "ballast"
        ballast.unlink(missing_ok=True)
        if room is not None:
            free = shutil.disk_usage(self.folder).free
            ballast.write_bytes(bytes(max(0, free - room)))


@pytest.fixture
def full_disk(small_disk):
    """A disk of 24 MB, empty."""
    return FullDisk(small_disk)


def options(device):
    return InstallOptions(
        settings={"mqtt": {"url": device.broker}, "device": {"name": "test"}},
        service="supervisor",
        check_timeout_s=20,
    )


def assert_whole(root, allowed):
    """What is active is one of the bundles `allowed`, every byte of it; gives which."""
    active = root / "active"
    for name, entry in json.loads((active / "manifest.json").read_text())["files"].items():
        content = (active / name).read_bytes()
        assert len(content) == entry["size"], name
        assert sha256(content) == entry["sha256"], name
    found = sha256((active / "manifest.json").read_bytes())[:16]
    assert found in allowed
    return found


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("worth", [0.9, 0.0], ids=["deflated", "as it is"])
def test_spoilt_transfer_never_activates(make_bundle, local_device, monkeypatch, capsys, worth):
    """A hundred deploys in all: each ends with the right bytes active, or with an error and the old bundle running."""
    monkeypatch.setattr(sending, "WORTH", worth)
    seed = int(os.environ.get("EDGEBIT_CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))
    dice, began = random.Random(seed), time.monotonic()
    first = make_bundle("first")
    local_device.deploy(first)
    outcomes, spoilt, running = Counter(), Counter(), first.id
    for number in range(50):
        bundle = make_bundle(f"bundle-{number}", ballast=dice.choice((20_000, 60_000)))
        line = NoisyLine(local_device.root, dice)
        local_device.reporter.sent.clear()
        try:
            install(bundle, line, options(local_device), local_device.reporter)
            outcomes["arrived whole"] += 1
            assert assert_whole(local_device.root, {bundle.id}) == bundle.id, f"seed {seed}"
            running = bundle.id
        except EdgebitError as error:
            outcomes["refused"] += 1
            assert "SHA-256" in str(error) or "damaged" in str(error), f"seed {seed}: {error}"
            assert assert_whole(local_device.root, {running}) == running, f"seed {seed}"
        spoilt += line.spoilt
    assert_whole(local_device.root, {running})
    status = local_device.installed().status()
    assert status["up"] and status["slots"][status["active"]]["id"] == running
    with capsys.disabled():
        print(f"\nseed {seed}: 50 deploys in {time.monotonic() - began:.0f} s: {dict(outcomes)}; chunks {dict(spoilt)}")
    assert outcomes["arrived whole"] and outcomes["refused"]


def test_spoilt_file_is_refused_and_the_next_deploy_mends_it(make_bundle, local_device):
    """The old bundle runs on, and what was spoilt is sent anew."""
    old, new = make_bundle("old"), make_bundle("new", ballast=50_000)
    local_device.deploy(old)
    pid = local_device.installed().status()["pid"]

    with pytest.raises(EdgebitError, match=r"SHA-256|damaged"):
        install(new, NoisyLine(local_device.root, random.Random(1), 1.0), options(local_device), local_device.reporter)

    assert local_device.installed().status()["pid"] == pid
    assert_whole(local_device.root, {old.id})
    local_device.deploy(new)
    assert_whole(local_device.root, {new.id})


def test_deltas_send_what_changed_and_no_byte_more(make_bundle, local_device):
    """By what the outcome says, and by what went through the transport."""
    first, second = make_bundle("first", ballast=70_000), make_bundle("second", ballast=70_000)
    whole = local_device.deploy(first)

    class Counting(LocalTransport):
        went = 0

        def put(self, source: Section, remote, progress=None):
            Counting.went += source.size
            super().put(source, remote, progress)

    outcome = install(second, Counting(local_device.root), options(local_device), local_device.reporter)

    changed = [name for name in second.manifest.files if second.manifest.files[name] != first.manifest.files[name]]
    assert changed == ["model.ebm"]
    size = second.manifest.files["model.ebm"].size
    assert (outcome.sent_files, outcome.sent_bytes, outcome.wire_bytes, Counting.went) == (1, size, size, size)
    assert whole.sent_bytes == whole.bundle_bytes == sum(entry.size for entry in first.manifest.files.values())
    assert outcome.bundle_bytes == sum(entry.size for entry in second.manifest.files.values())


@pytest.mark.slow
def test_full_disk_at_any_write(make_bundle, local_device, full_disk):
    """Whatever write is the first without room, the old bundle runs on; with room again, the new one comes."""
    device = local_device
    device.root = full_disk.folder / "device"
    old = make_bundle("old")
    device.deploy(old)
    failed = 0
    for number, room in enumerate((0, 4, 12, 24, 40, 60, 80, 100, 160, 240)):
        new = make_bundle(f"new-{number}", ballast=60_000)
        full_disk.leave(room * 1024)
        state = probe(LocalTransport(device.root))
        try:
            steps = plan_install(new.manifest, new.id, replace(state, free_bytes=1 << 30), options(device))
            Installation(new, LocalTransport(device.root), state, options(device), device.reporter).carry_out(steps)
            old = new
        except EdgebitError as error:
            failed += 1
            assert "No space left" in str(error) or "SHA-256" in str(error), error
        full_disk.leave(None)
        assert_whole(device.root, {old.id, new.id})
        device.installed().ask("check", "--timeout-s", "20")
        device.deploy(new)
        old = new
    assert failed
