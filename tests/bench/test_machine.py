"""Facts of a machine, from a /proc and /sys of our own: a Raspberry Pi, a server, and a system that tells nothing."""

import os
from pathlib import Path

import pytest

from edgebit.bench.machine import load_now, machine_facts
from edgebit.runtime.memory import last_cache_bytes, peak_rss_bytes, read_buffer_bytes


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


CACHE = "sys/devices/system/cpu/cpu0/cache"
SERVER = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 hypervisor\n",
    "proc/meminfo": "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n",
    "proc/stat": "cpu  1 2 3 4 5 6 7 800 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n",
    f"{CACHE}/index0/size": "48K\n", f"{CACHE}/index3/size": "32M\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
}  # fmt: skip
PI = {
    "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd0b\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/meminfo": "MemTotal:       1048576 kB\nMemAvailable:    131072 kB\n",
}


def test_facts_of_a_server(tmp_path):
    """Everything it tells."""
    facts = machine_facts(tree(tmp_path, SERVER))
    wanted = {
        "cpu": "Some CPU @ 3 GHz", "last_cache_mib": 32.0, "memory_mib": 16384.0, "governor": "schedutil",
        "max_mhz": 2400.0, "transparent_huge_pages": "madvise", "virtual_machine": True,
    }  # fmt: skip
    assert facts.items() >= wanted.items()
    assert load_now(tmp_path)["steal_s"] == 800 / os.sysconf("SC_CLK_TCK")


def test_facts_of_a_pi(tmp_path):
    """The device tree has the name; what is not told is None."""
    facts = machine_facts(tree(tmp_path, PI))
    wanted = {"cpu": "Raspberry Pi 5 Model B Rev 1.0", "last_cache_mib": None, "governor": None}
    assert facts.items() >= {**wanted, "virtual_machine": False}.items()


def test_a_system_that_tells_nothing_stops_nothing(tmp_path):
    """All of it may be missing."""
    assert machine_facts(tmp_path)["memory_mib"] is None
    assert load_now(tmp_path)["steal_s"] is None
    assert last_cache_bytes(tmp_path) == 0


@pytest.mark.parametrize(("files", "mib"), [(SERVER, 256), (PI, 32), ({}, 64)])
def test_the_buffer_is_larger_than_the_caches_and_fits_the_memory(files, mib, tmp_path):
    """Eight last caches; no more than a quarter of what is free."""
    assert read_buffer_bytes(tree(tmp_path, files)) == mib << 20


def test_the_most_that_was_held_only_grows():
    """A buffer that is written and given back stays in it."""
    before = peak_rss_bytes()
    bytearray(b"x" * before)
    assert peak_rss_bytes() > 1.5 * before
