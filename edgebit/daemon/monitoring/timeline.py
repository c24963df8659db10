"""When records were made, by the clock of now: a device's clock is wrong after boot, and jumps.

A record carries its boot, the seconds since that boot, and what the clock said. Within a boot the seconds alone are
true; the clock's last word of a boot is the best there is for it, since it is set right later and not wrong.
"""

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OWN_BOOT = secrets.token_bytes(16)  # where the system names none: good for this process


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time as a device knows it."""

    boot: bytes  # 16
    monotonic: float  # seconds since the boot, sleep included where the system counts it
    wall: float  # Unix seconds, right or wrong


def present() -> Moment:
    """This moment."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return Moment(_boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())
    return Moment(_boot_id(), time.monotonic(), time.time())


def starts(moments: Iterable[Moment], now: Moment | None) -> dict[bytes, float]:
    """When each boot began, in Unix seconds by the clock of `now`: a moment's time is that plus its seconds.

    Without `now` the clock's last word holds for the last boot too. A boot that would end after the next one's first
    record is moved to end there: its clock was ahead.
    """
    first: dict[bytes, Moment] = {}
    last: dict[bytes, Moment] = {}
    for moment in moments:
        first.setdefault(moment.boot, moment)
        last[moment.boot] = moment
    begun: dict[bytes, float] = {}
    next_s: float | None = None if now is None else now.wall
    for boot in reversed(first):
        told = now if now is not None and now.boot == boot else last[boot]
        begin_s = told.wall - told.monotonic
        if next_s is not None:
            begin_s = min(begin_s, next_s - last[boot].monotonic)
        begun[boot] = begin_s
        next_s = begin_s + first[boot].monotonic
    return begun


def _boot_id() -> bytes:
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return _OWN_BOOT
