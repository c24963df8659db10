"""A whole deploy without Python over adb, as a user types it: real adb, a fake adbd, mksh and toybox behind it."""

import json
import os
import subprocess
import sys

from adb_fixtures import FakePhone
from transport.fake_adbd import wait_until


def edgebit(*args, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "edgebit", *args], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_life_of_a_phone(fake_phone: FakePhone, runner_bundle):
    """Plan, deploy, ask by the command that is printed, status, deploy, back, log, and away."""
    one, two, root = runner_bundle("one"), runner_bundle("two"), fake_phone.folder / "edgebit"
    to = ["--to", fake_phone.url]

    plan = edgebit("deploy", str(one.path), *to, "--dry-run").stdout
    assert "no python3 there, so edgebit-run alone" in plan and not root.exists()
    said = edgebit("deploy", str(one.path), *to).stdout
    assert "3 golden probes equal bit for bit on scalar" in said and "no daemon runs there" in said
    command = said.partition("Try: ")[2].strip()
    assert command.startswith(f"adb -s {fake_phone.serial} shell ")
    asked = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert asked.stdout == "one answers\n"

    outcome = json.loads(edgebit("deploy", str(two.path), *to, "--json").stdout)
    assert outcome["sent_files"] == 1 and outcome["slot"] == "b"
    shown = edgebit("status", fake_phone.url).stdout
    assert "daemon: none, for there is no python3" in shown and f"* b  {two.id}  two" in shown
    assert "is active again in slot a" in edgebit("rollback", fake_phone.url).stdout
    assert "has no log" in edgebit("logs", fake_phone.url, code=8).stderr
    assert "nothing is left" in edgebit("uninstall", fake_phone.url, "--yes").stdout
    assert not os.path.lexists(root)


def test_cut_off_deploy_goes_on(fake_phone: FakePhone, runner_bundle):
    """The cable is pulled while the model is on its way: the bundle from before runs, and the rest is sent later."""
    one, two, root = runner_bundle("one"), runner_bundle("two", size=300_000), fake_phone.folder / "edgebit"
    edgebit("deploy", str(one.path), "--to", fake_phone.url)
    fake_phone.phone.lost_after = 200_000
    cut = edgebit("deploy", str(two.path), "--to", fake_phone.url, code=7).stderr
    assert "the connection was lost" in cut and "it goes on where it stopped" in cut
    wait_until(lambda: fake_phone.phone.ended == len(fake_phone.phone.commands))
    assert (root / "active").readlink().name == "a"
    fake_phone.plug_in()

    outcome = json.loads(edgebit("deploy", str(two.path), "--to", fake_phone.url, "--json").stdout)

    assert 0 < outcome["sent_bytes"] < two.manifest.files["model.ebm"].size
    assert (root / "active").readlink().name == "b"


def test_phone_that_a_bundle_was_not_built_for(fake_phone: FakePhone, runner_bundle):
    """Refused before a byte is sent."""
    bundle = runner_bundle(arch="riscv64")

    said = edgebit("deploy", str(bundle.path), "--to", fake_phone.url, code=8).stderr

    assert "built for riscv64" in said and not (fake_phone.folder / "edgebit").exists()
