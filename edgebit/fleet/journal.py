"""What a roll-out has done so far, in a file, so that one that was interrupted goes on where it stopped.

<state folder>/edgebit/rollouts/<sum of the inventory's path>/lock          held while a roll-out runs
<state folder>/edgebit/rollouts/<sum of the inventory's path>/<bundle>.json
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgebit.errors import DeployError
from edgebit.fleet.inventory import FleetDevice
from edgebit.fleet.rollout import GOOD, Result

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceReport:
    """How it went on one device."""

    name: str
    result: Result
    wave: str = ""
    why: str = ""  # it is not as it should be
    runs: str | None = None  # the bundle that runs now, "" for none, None where that is not known
    device: str = ""  # its name in topics
    seconds: float = 0.0
    sent_bytes: int = 0
    answer_s: float = 0.0  # from the daemon's start to its first answer
    tries: int = 0
    at: str = ""  # when, in UTC
    remarks: Sequence[str] = ()  # what its user should know or do


class Journal:
    """The file of one bundle and one inventory."""

    def __init__(self, path: Path, inventory: Path, bundle: str) -> None:
        self.path = path
        self._content: dict[str, Any] = {
            "schema": SCHEMA,
            "bundle": bundle,
            "inventory": str(inventory),
            "began": now(),
            "finished": False,
            "soaked": False,
            "devices": {},
        }

    @property
    def began(self) -> str:
        """When this roll-out began."""
        return str(self._content["began"])

    @property
    def inventory(self) -> str:
        """The inventory's file."""
        return str(self._content["inventory"])

    @property
    def soaked(self) -> bool:
        """Whether the canaries have proved themselves."""
        return bool(self._content["soaked"])

    def take_up(self) -> bool:
        """Go on with what the file says, where it is of a roll-out that did not finish; gives whether it is."""
        try:
            content = json.loads(self.path.read_bytes())
            devices = {
                name: (entry["sum"], DeviceReport(**entry["report"])) for name, entry in content["devices"].items()
            }
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeployError(
                f"{self.path}, which says how far the roll-out came, cannot be read: {error}. Begin anew: --fresh"
            ) from error
        if content.get("schema") != SCHEMA or content.get("finished") or not devices:
            return False
        self._content |= content
        return True

    def done(self, devices: Mapping[str, FleetDevice]) -> dict[str, DeviceReport]:
        """The devices that need not be tried again: they are done, and the inventory says of them what it said then."""
        return {
            name: DeviceReport(**entry["report"])
            for name, entry in self._content["devices"].items()
            if name in devices and entry["report"]["result"] in GOOD and entry["sum"] == _sum(devices[name])
        }

    def record(self, device: FleetDevice, report: DeviceReport) -> None:
        """Keep how it went on a device."""
        self._content["devices"][device.name] = {"sum": _sum(device), "report": asdict(report)}
        self._write()

    def set_soaked(self) -> None:
        """The canaries have proved themselves."""
        self._content["soaked"] = True
        self._write()

    def finish(self) -> None:
        """Nothing is left to do: the next roll-out of this bundle begins anew."""
        self._content["finished"] = True
        self._write()

    def _write(self) -> None:
        part = self.path.with_suffix(".part")
        try:
            with part.open("w", encoding="utf-8") as file:
                json.dump(self._content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as error:
            raise DeployError(f"{self.path} cannot be written: {error.strerror}. Make room or rights there") from error


@contextmanager
def open_journal(inventory: Path, bundle: str) -> Iterator[Journal]:
    """The journal of a bundle's roll-out. Raises DeployError while another roll-out to this inventory runs."""
    folder = _state_folder() / "rollouts" / hashlib.sha256(str(inventory.absolute()).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeployError(f"{folder} cannot be written: {error.strerror}. Make room or rights there") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeployError(f"another roll-out to the devices of {inventory} runs now. Wait for its end") from None
        yield Journal(folder / f"{bundle}.json", inventory.absolute(), bundle)
    finally:
        os.close(handle)


def now() -> str:
    """The time, in UTC, as reports say it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edgebit"


def _sum(device: FleetDevice) -> str:
    """A sum over what the inventory says of a device."""
    told = json.dumps(asdict(device), sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
