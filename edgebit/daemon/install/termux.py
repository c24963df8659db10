"""Termux, the terminal app on Android: how the daemon is started there after a reboot. Standard library only.

The app Termux:Boot runs what lies in ~/.termux/boot once the phone is up. Without that app the script does nothing, and
whether it is installed cannot be seen from here.
"""

import shlex
import subprocess
import sys
from pathlib import Path

REMARK = (
    "after a reboot the app Termux:Boot starts the daemon, and nothing else does: install it, open it once, and exempt"
    " it and Termux from battery optimisation. Android may still end what runs in the background"
)


def is_termux() -> bool:
    """Whether this Python is Termux's."""
    return Path(sys.prefix).match("*/com.termux/files/usr")


def boot_script(command: list[str], log: Path) -> str:
    """What Termux:Boot runs: the wake lock, which keeps the CPU running while the screen is off, then the command.

    The command must end by itself: Termux:Boot runs one script after the other.
    """
    return (
        f"#!{sys.prefix}/bin/sh\n"
        "# Written by edgebit deploy, taken away by edgebit uninstall; run by the app Termux:Boot.\n"
        f"{shlex.quote(f'{sys.prefix}/bin/termux-wake-lock')} || echo 'no wake lock: the phone may sleep' >&2\n"
        f"exec {shlex.join(command)} >>{shlex.quote(str(log))} 2>&1 </dev/null\n"
    )


def install_boot_script(command: list[str], log: Path) -> None:
    """Have the command run after a reboot, and take the wake lock now."""
    path = _boot_script_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.parent.with_name("edgebit.new")  # beside the folder: all that lies in it is run
    new.write_text(boot_script(command, log))
    new.chmod(0o700)
    new.replace(path)
    _wake("termux-wake-lock")


def remove_boot_script() -> None:
    """Undo install_boot_script()."""
    path = _boot_script_path()
    if path.exists():
        path.unlink()
        _wake("termux-wake-unlock")


def _boot_script_path() -> Path:
    return Path.home() / ".termux" / "boot" / "edgebit"


def _wake(program: str) -> None:
    """Take the app's wake lock, or give it back; without it the daemon runs all the same, while the screen is on."""
    try:
        subprocess.run([f"{sys.prefix}/bin/{program}"], capture_output=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return
