"""The first look at a device, with nothing of ours on it: one script for any POSIX shell, one round trip.

dash, busybox, and mksh with toybox (Android) run it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgebit.bundle.manifest import FileEntry
from edgebit.bundle.slots import OWN_NAMES, STORED
from edgebit.errors import TransportError
from edgebit.transport import Transport

# ELF e_machine, little-endian hex -> the architecture as `uname -m` says it.
_MACHINES = {"b700": "aarch64", "3e00": "x86_64", "2800": "armv7l", "0300": "i686", "f300": "riscv64"}

_SCRIPT = r"""
root=$1
echo "root $root"
echo "machine $(uname -m)"
echo "kernel $(uname -s) $(uname -r)"
echo "host $(uname -n)"
echo "uid $(id -u)"
echo "clock_s $(date +%s)"
echo "elf $(od -An -tx1 -j18 -N2 "$(command -v sh)")"
echo "page_bytes $(getconf PAGESIZE 2>/dev/null)"
[ -r /proc/meminfo ] && while read -r key value _; do
  case $key in
    MemTotal:) echo "memory_kib $value" ;;
    MemAvailable:) echo "available_kib $value" ;;
  esac
done </proc/meminfo
near=$root
while [ ! -d "$near" ]; do
  { [ -e "$near" ] || [ -L "$near" ]; } && echo "in_the_way $near"
  near=$(dirname "$near")
done
df -Pk "$near" | {
  read -r _
  read -r _ _ _ free _ mount
  echo "free_kib $free"
  options=
  [ -r /proc/mounts ] && while read -r _ place _ given _; do
    [ "$place" = "$mount" ] && options=$given
  done </proc/mounts
  case ,$options, in *,noexec,*) echo "noexec 1" ;; esac
}
[ -d /run/systemd/system ] && echo "init systemd"
for python in python3 python3.14 python3.13 python3.12 python3.11; do
  found=$("$python" -c "$2" 2>/dev/null) || continue
  echo "python $found"
  case $found in 3.[0-9].* | 3.10.* | 2.*) ;; *) break ;; esac
done
[ -d "$root/store" ] && echo "has_root 1"
[ -f "$root/edgebitd.toml" ] && echo "configured 1"
for place in active slots/a slots/b; do
  [ -f "$root/$place/edgebitd.pyz" ] && { echo "pyz $root/$place/edgebitd.pyz"; break; }
done
[ -L "$root/active" ] && echo "active $(readlink "$root/active")"
for name in trust state; do
  [ -f "$root/$name.json" ] || continue
  printf '%s ' $name
  while read -r line || [ -n "$line" ]; do printf '%s ' "$line"; done <"$root/$name.json"
  echo
done
[ -f "$root/state.json" ] || for place in "$root"/* "$root"/.[!.]*; do
  [ -e "$place" ] || [ -L "$place" ] && echo "entry ${place##*/}"
done
cd "$root/store" 2>/dev/null && for file in *; do
  [ -f "$file" ] && echo "stored $(stat -c '%s %n' "$file")"
done
echo "end 1"
"""

# Asked of each Python there is: version, path, and what of the standard library the daemon would miss.
_PYTHON_SCRIPT = """
import sys
lacks = []
for name in ("ctypes", "fcntl", "hashlib", "json", "ssl", "tomllib", "zlib"):
    try:
        __import__(name)
    except ImportError:
        lacks.append(name)
print("%d.%d.%d" % sys.version_info[:3], sys.executable, *lacks)
"""


@dataclass(frozen=True, slots=True)
class Python:
    """A Python on the device."""

    version: tuple[int, ...]
    path: str
    lacks: tuple[str, ...]  # modules of the standard library that are not installed


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceState:
    """What a device is and has, as one look showed it."""

    root: str
    arch: str  # of its programs, not of its kernel
    machine: str = ""  # of its kernel
    kernel: str = ""
    host: str = ""
    uid: int = 0
    page_bytes: int = 0
    memory_bytes: int = 0
    available_bytes: int = 0
    free_bytes: int = 0  # on the file system of root
    noexec: bool = False
    init: str = ""  # "systemd", or empty
    python: Python | None = None  # the newest there is
    has_root: bool = False
    configured: bool = False
    pyz: str = ""  # an edgebitd.pyz on it, to ask for more
    active: str = ""  # the slot that runs
    slots: Mapping[str, Mapping[str, Any]]
    refused: Mapping[str, str]
    trust: str = ""  # its trust.json, as it is
    clock_s: int = 0  # since 1970, UTC; 0: it did not say
    strange: tuple[str, ...] = ()  # in root, where edgebit has no state.json: what no cut-off deploy leaves
    in_the_way: str = ""  # of root: what lies there, or above it, and is no folder
    stored: Mapping[str, int]  # files in the store, the unfinished ones too: name -> bytes

    def holds(self, entry: FileEntry) -> bool:
        """Whether the store has the file, as far as name and size tell."""
        return self.stored.get(entry.sha256) == entry.size

    def partial(self, entry: FileEntry) -> int:
        """Bytes of the file that an earlier try left in the store."""
        there = self.stored.get(f"{entry.sha256}.part", 0)
        return there if there <= entry.size else 0

    def as_json(self) -> dict[str, Any]:
        """For `status --json`: the device without its store."""
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in ("stored", "slots", "refused", "active", "trust")
        }


def probe(transport: Transport) -> DeviceState:
    """Look at the device. Raises TransportError where it has no POSIX shell."""
    done = transport.run(["sh", "-c", _SCRIPT, "sh", transport.root, _PYTHON_SCRIPT])
    if done.code or not done.stdout.endswith("end 1\n"):
        said = (done.stderr or done.stdout).strip()[:300]
        raise TransportError(f"{transport.url} has no shell that edgebit can use: {said or f'exit code {done.code}'}")
    return parse_probe(done.stdout)


def parse_probe(text: str) -> DeviceState:
    """The state that the script's output tells; a fact that is not there stays at its default."""
    facts: dict[str, str] = {}
    pythons: list[Python] = []
    entries: list[str] = []
    stored: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "stored":
            size, _, name = value.partition(" ")
            if size.isdigit():
                stored[name] = int(size)
        elif key == "entry":
            entries.append(value)
        elif key == "python":
            version, path, *lacks = value.split(" ")
            pythons.append(Python(tuple(int(part) for part in version.split(".")), path, tuple(lacks)))
        else:
            facts[key] = value.strip()
    slots, refused = _read_state(facts.get("state", ""))
    active = facts.get("active", "").removeprefix("slots/")
    return DeviceState(
        root=facts.get("root", ""),
        arch=_MACHINES.get(facts.get("elf", "").replace(" ", ""), facts.get("machine", "unknown")),
        machine=facts.get("machine", ""),
        kernel=facts.get("kernel", ""),
        host=facts.get("host", ""),
        uid=_number(facts, "uid"),
        page_bytes=_number(facts, "page_bytes"),
        memory_bytes=_number(facts, "memory_kib") * 1024,
        available_bytes=_number(facts, "available_kib") * 1024,
        free_bytes=_number(facts, "free_kib") * 1024,
        noexec="noexec" in facts,
        init=facts.get("init", ""),
        python=max(pythons, key=lambda python: python.version, default=None),
        has_root="has_root" in facts,
        configured="configured" in facts,
        pyz=facts.get("pyz", ""),
        active=active if active in slots else "",
        slots=slots,
        refused=refused,
        trust=facts.get("trust", ""),
        clock_s=_number(facts, "clock_s"),
        strange=tuple(sorted([name for name in entries if name not in OWN_NAMES] + _strange_stored(stored, entries))),
        in_the_way=facts.get("in_the_way", ""),
        stored=stored,
    )


def _strange_stored(stored: Mapping[str, int], entries: list[str]) -> list[str]:
    return [f"store/{name}" for name in stored if "store" in entries and not STORED.fullmatch(name)]


def _number(facts: Mapping[str, str], key: str) -> int:
    text = facts.get(key, "")
    return int(text) if text.isdigit() else 0


def _read_state(text: str) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, str]]:
    if not text:
        return {}, {}
    try:
        state = json.loads(text)
        slots = {name: dict(slot) for name, slot in state["slots"].items() if {"id", "status"} <= set(slot)}
        return slots, dict(state["refused"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}, {}  # damaged: the agent rebuilds it from the slots
