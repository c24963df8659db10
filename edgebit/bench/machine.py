"""The machine that is measured on: what it is, and what else goes on there."""

import contextlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from edgebit.asked_process.cores import usable_cores
from edgebit.resources import package_dir
from edgebit.runtime.memory import last_cache_bytes, total_memory_bytes

_MIB = 1 << 20


def machine_facts(root: Path = Path("/")) -> dict[str, Any]:
    """What figures depend on, as far as this system tells; None where it does not. `root`: where /proc and /sys lie."""
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    return {
        "cpu": _cpu_model(root),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable_cores()),
        "last_cache_mib": _round_mib(last_cache_bytes(root) or None),
        "memory_mib": _round_mib(total_memory_bytes(root)),
        "governor": _text(frequency / "scaling_governor"),
        "max_mhz": _thousandth(_text(frequency / "cpuinfo_max_freq")),
        "transparent_huge_pages": _chosen(_text(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        "virtual_machine": "hypervisor" in (_cpu_line(root, "flags") or "").split(),
        "kernel": platform.release(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def load_now(root: Path = Path("/")) -> dict[str, float | None]:
    """What else goes on: load averages, and the CPU time, in seconds, that a host has kept from us since its start."""
    averages: tuple[float | None, ...] = (None, None, None)
    with contextlib.suppress(OSError):
        averages = os.getloadavg()
    words = (_text(root / "proc/stat") or "").partition("\n")[0].split()
    ticks = os.sysconf("SC_CLK_TCK")
    steal = int(words[8]) / ticks if len(words) > 8 and words[8].isdigit() else None
    return {
        "load_1_min": _rounded(averages[0]),
        "load_5_min": _rounded(averages[1]),
        "load_15_min": _rounded(averages[2]),
        "steal_s": _rounded(steal),
    }


def source_revision() -> str | None:
    """The git commit of the checkout that edgebit runs from, "-dirty" behind it where files differ; None elsewhere."""
    folder = package_dir().parent
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def _cpu_line(root: Path, key: str) -> str | None:
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _cpu_model(root: Path) -> str | None:
    """x86: the name. ARM: the device tree's, else the part's number."""
    named = _cpu_line(root, "model name") or (_text(root / "proc/device-tree/model") or "").strip("\0")
    part = _cpu_line(root, "CPU part")
    return named or (f"CPU part {part}" if part else platform.processor() or None)


def _chosen(text: str | None) -> str | None:
    """The word in brackets of "always [madvise] never"."""
    return text[text.find("[") + 1 : text.find("]")] if text and "[" in text else text


def _thousandth(text: str | None) -> float | None:
    return round(int(text) / 1000, 1) if text and text.isdigit() else None


def _round_mib(size: int | None) -> float | None:
    return None if size is None else round(size / _MIB, 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
