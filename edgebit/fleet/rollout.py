"""How a roll-out goes on, decided from what has happened so far: waves, limits, when to stop. Pure: nothing acts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgebit.errors import ConfigError

Result = Literal["updated", "present", "failed", "unreachable", "stopped", "untried"]  # stopped: by Ctrl-C
GOOD: frozenset[str] = frozenset({"updated", "present"})


@dataclass(frozen=True, slots=True)
class Wave:
    """Devices that are done before the next wave begins."""

    name: str  # "canary", or "1 of 3"
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a roll-out may do at once, and when it ends early."""

    parallel: int = 4  # devices at the same time
    max_failures: int = 0  # more than these, and nothing new begins; a canary's failure always ends it
    soak_s: float = 0.0  # how long the canaries must have run before others follow
    retries: int = 1  # more tries of a device that is out of reach


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What has happened so far."""

    results: Mapping[str, Result] = field(default_factory=dict)  # how each device's last try ended
    tries: Mapping[str, int] = field(default_factory=dict)  # of the devices that were tried
    running: Collection[str] = ()  # under way now
    soaked: bool = False  # the canaries have run for soak_s, and still answered


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next. `devices`: those to begin with ("start"); `why`: the reason ("stop")."""

    act: Literal["start", "wait", "soak", "stop", "finish"]
    devices: tuple[str, ...] = ()
    why: str = ""


def parse_batch(text: str, fleet: int) -> int:
    """How many devices a wave has, from "5" or "25%" of `fleet`, at least one. Raises ConfigError."""
    digits = text.removesuffix("%")
    if not digits.isascii() or not digits.isdigit() or not int(digits) or (text != digits and int(digits) > 100):
        raise ConfigError(f"--batch {text!r} is neither a number of devices, such as 5, nor a share, such as 25%")
    return max(1, fleet * int(digits) // 100) if text != digits else int(digits)


def plan_waves(names: Sequence[str], canary: int, batch: int) -> tuple[Wave, ...]:
    """The waves, in order: the first `canary` devices, then `batch` at a time."""
    rest = names[canary:]
    batches = [tuple(rest[begin : begin + batch]) for begin in range(0, len(rest), batch)]
    waves = [Wave(f"{number} of {len(batches)}", devices) for number, devices in enumerate(batches, 1)]
    return (Wave("canary", tuple(names[:canary])), *waves) if canary else tuple(waves)


def decide(waves: Sequence[Wave], progress: Progress, limits: Limits) -> Decision:
    """What to do next, given what has happened so far."""

    def is_open(name: str) -> bool:
        if name in progress.running:
            return False
        result = progress.results.get(name)
        return result is None or (result == "unreachable" and progress.tries.get(name, 0) <= limits.retries)

    failed = [
        name
        for wave in waves
        for name in wave.devices
        if name not in progress.running and not is_open(name) and progress.results[name] not in GOOD
    ]
    if why := _reason_to_stop(waves, failed, limits):
        return Decision("wait") if progress.running else Decision("stop", why=why)
    for wave in waves:
        candidates = [name for name in wave.devices if is_open(name)]
        candidates.sort(key=lambda name: progress.tries.get(name, 0))  # first those that were not tried yet
        if candidates:
            free = limits.parallel - len(progress.running)
            return Decision("start", tuple(candidates[:free])) if free > 0 else Decision("wait")
        if any(name in progress.running for name in wave.devices):
            return Decision("wait")
        if wave.name == "canary" and limits.soak_s and not progress.soaked and _is_work_left(waves, progress):
            return Decision("soak")
    return Decision("finish")


def _reason_to_stop(waves: Sequence[Wave], failed: Sequence[str], limits: Limits) -> str:
    canaries = waves[0].devices if waves and waves[0].name == "canary" else ()
    if broken := [name for name in failed if name in canaries]:
        return f"canary {', '.join(broken)} failed"
    if len(failed) > limits.max_failures:
        few = f"{len(failed)} device{'s' if len(failed) > 1 else ''} failed"
        return f"{few}, and --max-failures is {limits.max_failures}"
    return ""


def _is_work_left(waves: Sequence[Wave], progress: Progress) -> bool:
    return any(progress.results.get(name) not in GOOD for wave in waves for name in wave.devices)
