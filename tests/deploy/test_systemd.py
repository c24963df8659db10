"""The unit under a real systemd, PID 1 of its own namespaces on this machine: start, crash, trial, power cut and boot.

Only the system's instance: a user's own needs logind and its bus, which are not started here.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edgebit.deploy.device import Device
from edgebit.deploy.install import Installation, install
from edgebit.deploy.plan import InstallOptions, plan_deploy
from edgebit.device_probe import probe
from edgebit.transport.local import LocalTransport

ROOT = "/srv/edgebit"
BOOT_S = 30.0

# What the device's disk holds is bound over this machine's; all else is seen as it is.
BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$1/srv" /srv
mount --bind "$1/units" /etc/systemd/system
mount --bind "$1/console" /dev/console
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/etc/systemd/system \
  /usr/lib/systemd/systemd --system --unit=multi-user.target
"""
TARGETS = ("multi-user", "network-online", "sysinit", "basic", "shutdown", "local-fs", "network")


class Machine:
    """A systemd that was booted, as often as wanted, on one disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("srv", "units"):
            (folder / name).mkdir()
        (folder / "console").touch()
        for target in TARGETS:
            (folder / "units" / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        self._unshare: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def boot(self) -> str:
        """Boot; gives why it did not, or nothing."""
        self._unshare = subprocess.Popen(
            ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--uts", "--ipc", "--cgroup",
             "sh", "-c", BOOT, "sh", str(self._folder)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            if self._unshare.poll() is not None:
                assert self._unshare.stderr is not None
                return self._unshare.stderr.read().decode(errors="replace").strip() or "it ended at once"
            children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
            self.pid = int(children[0]) if children else 0
            if self.pid and self.run("systemctl", "is-active", "--quiet", "multi-user.target").returncode == 0:
                return ""
            time.sleep(0.1)
        self.cut_power()
        return f"it was not up within {BOOT_S:g} s"

    def cut_power(self) -> None:
        """All processes are gone at once."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        if self._unshare is not None:
            self._unshare.wait(timeout=20)
        self.pid = 0

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside(), *argv], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60
        )

    def inside(self) -> list[str]:
        return [
            "nsenter",
            "-t",
            str(self.pid),
            "-m",
            "-p",
            "-u",
            "-i",
            "-C",
            "env",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ]


class MachineTransport(LocalTransport):
    """Into that machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(Path(ROOT))
        self._machine = machine

    def run(self, argv, *, input=None, timeout_s=60):
        return super().run([*self._machine.inside(), *argv], input=input, timeout_s=timeout_s)

    def put(self, source, remote, progress=None):
        super().put(source, f"/proc/{self._machine.pid}/root{remote}", progress)


@pytest.fixture
def machine(require_tool, skip, tmp_path):
    for tool in ("unshare", "nsenter", "systemctl", "/usr/lib/systemd/systemd", "/usr/bin/python3"):
        require_tool(tool)
    machine = Machine(tmp_path)
    if why := machine.boot():
        skip(f"no systemd can be booted in namespaces here: {why}")
    yield machine
    machine.cut_power()


def options(broker, **more):
    return InstallOptions(
        settings={"mqtt": {"url": broker}, "device": {"name": "unit"}}, service="systemd", check_timeout_s=20, **more
    )


def deploy(machine, bundle, broker, reporter):
    return install(bundle, MachineTransport(machine), options(broker), reporter)


def begin(machine, bundle, broker, reporter):
    """A deploy whose machine is lost once the new daemon has been started."""
    transport = MachineTransport(machine)
    state = probe(transport)
    steps = plan_deploy(bundle, state, options(broker))
    end = next(number for number, step in enumerate(steps) if step.action == "check")
    Installation(bundle, transport, state, options(broker), reporter).carry_out(steps[:end])


def wait_until_answers(machine, name, timeout_s=60):
    """Return once the bundle `name` answers a prompt over MQTT."""
    transport = MachineTransport(machine)
    deadline = time.monotonic() + timeout_s
    while True:
        device = Device.installed(transport)
        status = device.ask("status")
        there = status["slots"][status["active"]]["name"] if status["active"] else None
        if there == name and status["up"]:
            asked = transport.run(
                [
                    "/usr/bin/python3",
                    f"{ROOT}/active/edgebitd.pyz",
                    "agent",
                    "--root",
                    ROOT,
                    "check",
                    "--timeout-s",
                    "5",
                ]
            )
            if asked.code == 0:
                return device.ask("status")  # the one before may be older than the daemon's start
        assert time.monotonic() < deadline, f"{there} is there, not {name}: {device.logs(20)[0]}"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_unit_under_a_real_systemd(make_bundle, machine, broker, recorder):
    """Deployed, killed, crashing on trial, and through power cuts, also on trial: it answers, the old or the new."""
    outcome = deploy(machine, make_bundle("old"), broker, recorder)
    assert outcome.service == "systemd-system"
    status = wait_until_answers(machine, "old")

    machine.run("kill", "-KILL", str(status["pid"]))
    wait_until_answers(machine, "old")

    machine.cut_power()
    assert machine.boot() == ""
    wait_until_answers(machine, "old")

    begin(machine, make_bundle("crashes", answers="crash"), broker, recorder)
    status = wait_until_answers(machine, "old", 120)
    assert "did not stay up in 3 starts" in str(status["refused"])

    begin(machine, make_bundle("new"), broker, recorder)
    machine.cut_power()
    assert machine.boot() == ""
    status = wait_until_answers(machine, "new")
    assert status["slots"][status["active"]]["tries_left"] < 3

    deploy(machine, make_bundle("newer"), broker, recorder)
    Device.installed(MachineTransport(machine)).uninstall(keep_config=False)
    assert not list((machine._folder / "units").glob("edgebit*"))
