"""How much RAM this machine has."""

from pathlib import Path


def total_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """RAM that the kernel has to give; None where it does not say."""
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return 1024 * int(fields["MemTotal"].split()[0])
    except (OSError, KeyError, ValueError, IndexError):
        return None
