"""Termux as far as a machine without a phone can act it: its prefix is a virtual environment, its apps are scripts."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from deploy.conftest import Recorder

from edgebit.deploy.device import Device
from edgebit.deploy.install import install
from edgebit.deploy.plan import InstallOptions
from edgebit.transport import open_transport


@pytest.fixture
def termux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Termux's files: usr with a Python and the two wake-lock programs, which write down their names."""
    files = tmp_path / "com.termux" / "files"
    venv.create(files / "usr", symlinks=True)
    (files / "home").mkdir()
    (files / "usr" / "bin" / "sh").symlink_to("/bin/sh")
    for name in ("termux-wake-lock", "termux-wake-unlock"):
        program = files / "usr" / "bin" / name
        program.write_text(f"#!/bin/sh\necho {name} >>'{files}/wakes'\n")
        program.chmod(0o755)
    monkeypatch.setenv("HOME", str(files / "home"))
    monkeypatch.setenv("PATH", f"{files}/usr/bin:/usr/bin:/bin")
    return files


@pytest.mark.slow
def test_daemon_comes_back_after_a_reboot(termux, make_bundle, broker):
    """deploy says what it takes; the script that Termux:Boot would run starts the daemon; uninstall takes it away."""
    url, script = f"local:{termux}/home/edgebit", termux / "home" / ".termux" / "boot" / "edgebit"
    settings = {"mqtt": {"url": broker}, "device": {"name": "phone"}}
    with open_transport(url) as transport:
        outcome = install(make_bundle(), transport, InstallOptions(settings=settings), Recorder())
        device = Device.installed(transport)
        try:
            assert outcome.service == "termux" and "Termux:Boot starts the daemon" in outcome.remarks[0]
            assert [place.name for place in script.parent.iterdir()] == ["edgebit"], "all that lies there is run"
            device.ask("stop")  # the phone goes down ...
            assert not device.status()["up"]

            subprocess.run([script], check=True, timeout=60, stdin=subprocess.DEVNULL)  # ... and comes up

            assert device.status()["up"]
            assert device.ask("check", "--timeout-s", "20", timeout_s=60)["device"] == "phone"
        finally:
            device.uninstall(keep_config=False)
    assert not script.exists()
    assert (termux / "wakes").read_text().split() == ["termux-wake-lock"] * 3 + ["termux-wake-unlock"]


def test_boot_script_without_wake_lock(termux):
    """An app without the permission for it is no reason not to start."""
    (termux / "usr" / "bin" / "termux-wake-lock").unlink()
    program = (
        "from pathlib import Path; from edgebit.daemon.install import termux;"
        f"termux.install_boot_script(['touch', '{termux}/it is up'], Path('{termux}/log'))"
    )
    subprocess.run([sys.executable, "-c", f"import sys; sys.prefix = '{termux}/usr'; {program}"], check=True)

    done = subprocess.run(
        [termux / "home" / ".termux" / "boot" / "edgebit"], capture_output=True, text=True, check=True
    )

    assert (termux / "it is up").exists() and "the phone may sleep" in done.stderr
