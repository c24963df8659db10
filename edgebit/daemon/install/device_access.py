"""Which devices the unit lets the daemon open: the Pi's firmware, and the port of a serial meter; else none."""

import grp
import os
import pwd
import re
from collections.abc import Sequence
from pathlib import Path

from edgebit.daemon.config.reader import read_config
from edgebit.daemon.install.settings import CONFIG_NAME
from edgebit.errors import ConfigError

NO_DEVICES = ("PrivateDevices=yes",)
_PORT = re.compile(r"(tty[A-Za-z]+|rfcomm)[0-9]+")
_USB_PORTS = ("ttyUSB", "ttyACM")  # of a meter that is not plugged in, whose by-id link names neither


def meter_port(root: Path) -> str:
    """[power] port of the daemon in `root`; empty where there is none, or no configuration that can be read."""
    try:
        return read_config(root / CONFIG_NAME).power.port
    except ConfigError:
        return ""


def port_fault(port: str) -> str:
    """Why this user cannot use a serial port; empty where it can."""
    if not Path(port).exists():
        return f"there is no {port}: is the meter plugged in?"
    if not os.access(port, os.R_OK | os.W_OK):
        return f"{port} may not be used by {pwd.getpwuid(os.getuid()).pw_name}"
    return ""


def device_access(port: str, dev: Path = Path("/dev")) -> Sequence[str]:
    """Lines of [Service] for the system's instance. `port`: [power] port, empty where there is no meter."""
    rules, groups = [], []
    if (dev / "vcio").exists():
        rules.append("DeviceAllow=/dev/vcio rw")
        groups.append("video")
    if port:
        found = _PORT.fullmatch(Path(os.path.realpath(port)).name)
        rules += [f"DeviceAllow=char-{kind} rw" for kind in ((found[1],) if found else _USB_PORTS)]
        groups.append("dialout")
    if not rules:
        return NO_DEVICES
    here = [name for name in groups if _is_group(name)]  # systemd starts nothing for a group that is not there
    return ["PrivateDevices=no", *([f"SupplementaryGroups={' '.join(here)}"] if here else []), *rules]


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
