"""The daemon's unit: filled in for a device, and driven through the system's instance of systemd or a user's own."""

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edgebit.bundle.manifest import SERVICE_MEMBER
from edgebit.daemon.install.device_access import NO_DEVICES, device_access, meter_port
from edgebit.errors import DeployError

SystemdKind = Literal["systemd-user", "systemd-system"]

UNIT = "edgebit-daemon.service"


def instance() -> SystemdKind | None:
    """The instance that this user may drive; None where systemd does not run, or has none for this user."""
    if not Path("/run/systemd/system").is_dir() or not shutil.which("systemctl"):
        return None
    if os.geteuid() == 0:
        return "systemd-system"
    return "systemd-user" if _systemctl("systemd-user", "show-environment").returncode == 0 else None


def install_unit(kind: SystemdKind, root: Path) -> None:
    """Write the unit of the active bundle for the daemon of `root`. Raises DeployError where it cannot stand in one."""
    template = (root / "active" / SERVICE_MEMBER).read_text()
    path = _unit_path(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    user = pwd.getpwuid(os.getuid()).pw_name
    text = render_unit(template, kind, root, sys.executable, user, device_access(meter_port(root)))
    new = path.with_name(path.name + ".new")  # no unit of systemd's: it has another ending
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def restart(kind: SystemdKind, within_s: float) -> str:
    """End the daemon that runs and start it anew, now and at every boot; gives a remark or "".

    Raises DeployError where another does not begin in time.
    """
    before = _invocation(kind)
    # Not waited for: systemd would until the daemon says that it is up, which one that hangs never does.
    for verb in (("daemon-reload",), ("enable", UNIT), ("--no-block", "restart", UNIT)):
        done = _systemctl(kind, *verb)
        if done.returncode:
            raise DeployError(f"systemctl {' '.join(verb)} failed: {done.stderr.strip() or done.stdout.strip()}")
    _wait_for_another(kind, before, within_s)
    return _linger() if kind == "systemd-user" else ""


def stop(kind: SystemdKind) -> None:
    """Stop the daemon, where there is a unit of it."""
    if _unit_path(kind).exists():
        _systemctl(kind, "stop", UNIT)


def disable(kind: SystemdKind) -> None:
    """Take the unit away, where there is one."""
    if _unit_path(kind).exists():
        _systemctl(kind, "disable", UNIT)
        _unit_path(kind).unlink()
        _systemctl(kind, "daemon-reload")


def pid(kind: SystemdKind) -> int | None:
    """The daemon's process, where it runs."""
    shown = _systemctl(kind, "show", "--property=MainPID", "--value", UNIT).stdout.strip()
    return int(shown) if shown.isdigit() and int(shown) else None


def is_up(kind: SystemdKind) -> bool:
    """Whether systemd keeps the daemon running; the daemon itself may just be starting again."""
    state = _systemctl(kind, "show", "--property=ActiveState", "--value", UNIT).stdout.strip()
    return state in ("active", "activating", "reloading")


def render_unit(
    template: str, kind: SystemdKind, root: Path, python: str, user: str, devices: Sequence[str] = NO_DEVICES
) -> str:
    """The unit for this device: names filled in, and for a user's own systemd only what that may do.

    Lines between `# [system]` and `# [end]` need the rights of the system's instance.
    """
    lines, inside = [], False
    for line in template.splitlines():
        if line in ("# [system]", "# [end]"):
            inside = line == "# [system]"
        elif kind == "systemd-system" or not inside:
            lines.append(line)
    wanted_by = "multi-user.target" if kind == "systemd-system" else "default.target"
    names = {"@ROOT@": str(root), "@PYTHON@": python, "@USER@": user, "@WANTED_BY@": wanted_by}
    text = "\n".join(lines) + "\n"
    for name, value in names.items():
        if any(character in value for character in '\n"\\%$'):
            raise DeployError(f"{value!r} cannot stand in a systemd unit. Choose another folder with --root")
        text = text.replace(name, value)
    return text.replace("@DEVICES@", "\n".join(devices))


def _unit_path(kind: SystemdKind) -> Path:
    if kind == "systemd-system":
        return Path("/etc/systemd/system") / UNIT
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "systemd" / "user" / UNIT


def _systemctl(kind: SystemdKind, *args: str) -> subprocess.CompletedProcess[str]:
    scope = ["--user"] if kind == "systemd-user" else []
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
    return subprocess.run(
        ["systemctl", *scope, "--no-ask-password", *args],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def _invocation(kind: SystemdKind) -> str:
    """What tells one start of the daemon from another; empty before the first."""
    return _systemctl(kind, "show", "--property=InvocationID", "--value", UNIT).stdout.strip()


def _wait_for_another(kind: SystemdKind, before: str, within_s: float) -> None:
    """Return once the daemon that ran is gone and another begins. Raises DeployError where it does not."""
    deadline = time.monotonic() + within_s
    while _invocation(kind) in ("", before):
        if time.monotonic() > deadline:
            raise DeployError(f"systemd did not start {UNIT} in time. Look at `systemctl status {UNIT}`")
        time.sleep(0.05)


def _linger() -> str:
    """Let the user's services run without a login; gives a remark where that was refused."""
    user = pwd.getpwuid(os.getuid()).pw_name
    if Path(f"/var/lib/systemd/linger/{user}").exists():
        return ""
    done = subprocess.run(
        ["loginctl", "--no-ask-password", "enable-linger"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    return f"the daemon stops when {user} logs out. Run once on the device: sudo loginctl enable-linger {user}"
