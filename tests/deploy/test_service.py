"""The systemd unit: rendered for the system's instance and a user's own, and how hard it is to break out of."""

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import pytest

from edgebit import resources
from edgebit.daemon.app import STOP_S
from edgebit.daemon.config.sections import ServingConfig
from edgebit.daemon.install import systemd
from edgebit.daemon.install.device_access import NO_DEVICES, device_access, meter_port, port_fault
from edgebit.daemon.install.heartbeat import SILENCE_S
from edgebit.daemon.install.service import LOG_MAX_BYTES, STOP_TIMEOUT_S, Service, detect
from edgebit.daemon.install.systemd import render_unit
from edgebit.errors import DeployError

TEMPLATE = (resources.package_dir() / "daemon" / "install" / "edgebit-daemon.service").read_text()
NEEDS_ROOT = ("CapabilityBoundingSet", "ProtectKernelModules", "ProtectClock", "PrivateDevices", "User=")


def render(kind, devices=NO_DEVICES):
    return render_unit(TEMPLATE, kind, Path("/srv/edgebit"), "/usr/bin/python3", "pi", devices)


@pytest.mark.parametrize("kind", ["systemd-user", "systemd-system"])
def test_unit_is_complete(kind):
    """No name is left to fill in; the tries of a bundle on trial are counted before each start."""
    unit = render(kind)

    assert "@" not in unit.replace("@system-service", "").replace("@privileged", "")
    assert "ExecStartPre=/usr/bin/python3 /srv/edgebit/active/edgebitd.pyz agent --root /srv/edgebit starting\n" in unit
    assert "\nType=notify\n" in unit and "\nWatchdogSec=60\n" in unit
    assert "ExecStart=/usr/bin/python3 /srv/edgebit/active/edgebitd.pyz run --root /srv/edgebit\n" in unit


def test_user_unit_has_nothing_that_needs_root():
    """A user's own systemd would fail to start such a unit (218/CAPABILITIES)."""
    assert not [word for word in NEEDS_ROOT if word in render("systemd-user")]
    assert all(word in render("systemd-system") for word in NEEDS_ROOT)
    assert "WantedBy=default.target" in render("systemd-user")
    assert "WantedBy=multi-user.target" in render("systemd-system")


@pytest.mark.parametrize("devices", [NO_DEVICES, device_access("/dev/ttyUSB0", Path("/dev"))])
def test_system_unit_is_sandboxed(require_tool, tmp_path, devices):
    """systemd's own measure of exposure, 0 the best and 10 the worst, stays at 2.0 or below."""
    unit = tmp_path / systemd.UNIT
    unit.write_text(render("systemd-system", devices))

    done = subprocess.run(
        [require_tool("systemd-analyze"), "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 2.0


@pytest.mark.parametrize(
    ("port", "rules"),
    [
        ("/dev/ttyUSB0", ["DeviceAllow=char-ttyUSB rw"]),
        ("/dev/ttyACM12", ["DeviceAllow=char-ttyACM rw"]),
        ("/dev/rfcomm0", ["DeviceAllow=char-rfcomm rw"]),
        ("by-id", ["DeviceAllow=char-ttyACM rw"]),
        ("/dev/serial/by-id/usb-gone", ["DeviceAllow=char-ttyUSB rw", "DeviceAllow=char-ttyACM rw"]),
        ("/dev/x\nExecStart=/bin/sh", ["DeviceAllow=char-ttyUSB rw", "DeviceAllow=char-ttyACM rw"]),
    ],
)
def test_the_unit_lets_the_daemon_open_its_meter_and_nothing_else(tmp_path, port, rules):
    """By kind, for the number changes when it is plugged in again; nothing of a port's name gets into the unit."""
    if port == "by-id":
        (tmp_path / "by-id").symlink_to("ttyACM3")
        port = str(tmp_path / "by-id")
    lines = device_access(port, tmp_path)
    assert [line for line in lines if not line.startswith("SupplementaryGroups=")] == ["PrivateDevices=no", *rules]
    assert "dialout" in "".join(lines)


def test_the_unit_of_a_pi_lets_the_daemon_ask_the_firmware(tmp_path):
    """Where its door is there; a device with neither gets none at all."""
    assert device_access("", tmp_path) == NO_DEVICES
    (tmp_path / "vcio").touch()
    assert "DeviceAllow=/dev/vcio rw" in device_access("", tmp_path)
    assert not any("Device" in line for line in render("systemd-user", device_access("", tmp_path)).splitlines())


def test_the_meters_port_comes_from_the_configuration(tmp_path):
    """A broken one is the daemon's to complain of."""
    assert meter_port(tmp_path) == ""
    (tmp_path / "edgebitd.toml").write_text('[power]\nport = "/dev/ttyUSB0"\n')
    assert meter_port(tmp_path) == "/dev/ttyUSB0"
    (tmp_path / "edgebitd.toml").write_text("[power\n")
    assert meter_port(tmp_path) == ""


def test_a_port_that_cannot_be_used_is_noticed(tmp_path, monkeypatch):
    """Before the daemon is asked: not plugged in, or of a group that its user is not in."""
    port = tmp_path / "ttyUSB0"
    assert "is the meter plugged in?" in port_fault(str(port))
    port.touch()
    assert port_fault(str(port)) == ""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "may not be used by" in port_fault(str(port))


def test_folder_that_cannot_stand_in_a_unit_is_refused():
    """A percent sign would be a specifier there."""
    with pytest.raises(DeployError, match="--root"):
        render_unit(TEMPLATE, "systemd-user", Path("/srv/50%"), "/usr/bin/python3", "pi")


def test_systemd_is_driven(tmp_path, monkeypatch):
    """Start installs, enables and restarts the unit of the user's instance; disable takes it away."""
    called = tmp_path / "called"
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >>{called}\ncase "$*" in *" show "*) echo $$ ;; esac\n')
    program.chmod(0o755)
    (program.parent / "loginctl").symlink_to(program)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = tmp_path / "device"
    (root / "active" / "service").mkdir(parents=True)
    (root / "active" / "service" / systemd.UNIT).write_text(TEMPLATE)
    daemon = Service(root)

    assert daemon.start("systemd-user") == ""

    unit = tmp_path / "config" / "systemd" / "user" / systemd.UNIT
    assert f"run --root {root}\n" in unit.read_text()
    daemon.disable()
    assert not unit.exists()
    assert [
        line.replace("--no-ask-password ", "").replace("--user ", "")
        for line in called.read_text().splitlines()
        if " show " not in line
    ] == [
        "daemon-reload",
        f"enable {systemd.UNIT}",
        f"--no-block restart {systemd.UNIT}",
        "enable-linger",
        f"stop {systemd.UNIT}",
        f"disable {systemd.UNIT}",
        "daemon-reload",
    ]


def test_refused_linger_is_said(tmp_path, monkeypatch):
    """Without it the daemon ends with the login, so the user is told the one command to run."""
    program = tmp_path / "loginctl"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert "sudo loginctl enable-linger" in systemd._linger()


def test_supervisor_can_be_insisted_on():
    """Whatever the machine has."""
    assert detect("supervisor") == "supervisor"


def test_log_stays_short(tmp_path):
    """Past its size it is set aside and begun anew, under the hands of whoever writes to it."""
    daemon = Service(tmp_path)
    daemon.log.parent.mkdir()
    with daemon.log.open("ab") as writer:
        writer.write(b"x" * (LOG_MAX_BYTES + 1))
        writer.flush()
        daemon.rotate_log()
        writer.write(b"after\n")

    assert daemon.log.read_bytes() == b"after\n"
    assert daemon.log.with_name("edgebitd.log.1").stat().st_size == LOG_MAX_BYTES + 1


def test_state_of_the_kind_is_json_free(tmp_path):
    """What is not a known kind counts as never started."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "service").write_text(json.dumps({"kind": "supervisor"}))

    assert Service(tmp_path).kind() is None


def test_who_stops_the_daemon_waits_longer_than_it_takes():
    """With the longest drain_s, and each part of the end as slow as it may be; the word of life ends with the stop."""
    (drain,) = [field for field in dataclasses.fields(ServingConfig) if field.name == "drain_s"]
    longest_s = drain.metadata["within"][1] + STOP_S
    unit = render("systemd-system")
    systemd_s, watchdog_s = (float(re.search(rf"{key}=(\d+)", unit)[1]) for key in ("TimeoutStopSec", "WatchdogSec"))
    assert longest_s < STOP_TIMEOUT_S < systemd_s
    assert longest_s < min(watchdog_s, SILENCE_S)
