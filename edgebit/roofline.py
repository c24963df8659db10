"""The roofline: how fast a model can be on a machine, from bytes, bandwidth and cycles. Estimates, not measurements.

A decode step reads every weight once and multiplies each with one activation. Its parts (projections, head, KV cache)
follow one another, and each takes as long as the slower of the two: reading its bytes from memory, or computing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from edgebit.targets import Target, devices

# Bits that a ternary weight takes, in whole blocks; of equally fast layouts the first is taken.
Layout = Literal["t2", "t1"]
LAYOUT_BITS: dict[Layout, float] = {"t2": 2.0, "t1": 5 / 3}
ENGINE_SHARE = 0.85  # of a bandwidth or a micro-kernel's speed that the engine is made to reach: the low end of ranges


class Range(NamedTuple):
    """The lowest and the highest that a figure may be."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What an estimate needs to know of a machine; None: not known."""

    cores: int | None = None  # those that get a worker thread
    read_bytes_s: Range | None = None  # all cores together
    core_read_bytes_s: Range | None = None  # one core alone
    weights_s: Mapping[
        str, Range
    ]  # by op, as in CyclesPerWeight: weights and tokens that one core computes in a second


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Weights that are read and used together, once for each token or batch."""

    name: str
    n_bytes: int
    weights: int = 0
    op: str = ""  # that computes it; empty: reading is all there is to it


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What an estimate came to."""

    tokens_s: Range
    bounds: Mapping[str, str]  # part: "memory" or "cycles", whichever is slower
    missing: tuple[str, ...]  # ops whose cycles are not known: their parts are taken as bound by memory


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """A layout, and why."""

    layout: Layout
    reason: str  # with all figures
    summary: str  # the reason in few words
    is_estimated: bool = True  # False: figures are missing, and it is the one that does least harm


def machine_of(target: Target) -> Machine:
    """What a target's figures say; ranges reach from the engine's share of the lowest to all of the highest."""
    clock_hz = 1e9 * (target.clock_ghz or 0)
    cycles = {op: value for op, value in asdict(target.cycles_per_weight).items() if value is not None}
    return Machine(
        cores=target.worker_cores,
        read_bytes_s=_bytes_a_second(target.read_gb_s),
        core_read_bytes_s=_bytes_a_second(target.read_core_gb_s),
        weights_s={op: Range(ENGINE_SHARE * clock_hz / value, clock_hz / value) for op, value in cycles.items()}
        if clock_hz
        else {},
    )


def _bytes_a_second(gb_s: tuple[float, float] | None) -> Range | None:
    return None if gb_s is None else Range(ENGINE_SHARE * 1e9 * gb_s[0], 1e9 * gb_s[1])


def bandwidth(machine: Machine, threads: int) -> Range | None:
    """Bytes a second that `threads` threads read together; None where that is not known."""
    every, core = machine.read_bytes_s, machine.core_read_bytes_s
    if core is None or every is None:
        return core if threads == 1 and core is not None else every
    if threads == 1:
        return core
    return Range(min(every.low, threads * core.low), min(every.high, threads * core.high))


def estimate(machine: Machine, parts: Sequence[Part], threads: int, *, batch: int = 1) -> Estimate | None:
    """Tokens a second when `parts` are read once for `batch` tokens and computed for each; None without a bandwidth."""
    read = bandwidth(machine, threads)
    if read is None:
        return None
    busy = min(threads, machine.cores or threads)
    slow = fast = 0.0  # seconds a token
    bounds, missing = {}, []
    for part in parts:
        reading = Range(part.n_bytes / batch / read.high, part.n_bytes / batch / read.low)
        rate = machine.weights_s.get(part.op)
        computing = Range(0, 0)
        if rate is not None:
            computing = Range(part.weights / busy / rate.high, part.weights / busy / rate.low)
        elif part.op:
            missing.append(part.op)
        slow += max(reading.high, computing.high)
        fast += max(reading.low, computing.low)
        bounds[part.name] = "cycles" if computing.middle > reading.middle else "memory"
    return Estimate(tokens_s=Range(1 / slow, 1 / fast), bounds=bounds, missing=tuple(dict.fromkeys(missing)))


def choose_layout(target: Target, threads: int | None = None) -> LayoutChoice:
    """The layout in which decode is fastest on `target`, with one thread for each big core unless `threads` says.

    For a target that stands for several, the layout whose greatest loss on any of them is least; and layout t2 where
    nothing is known, since it takes the fewest cycles. Raises TargetError where it stands for one that is not there.
    """
    return choose_layout_on({device.name: machine_of(device) for device in devices(target)}, threads)


def choose_layout_on(machines: Mapping[str, Machine], threads: int | None = None) -> LayoutChoice:
    """As choose_layout(), on machines by their names."""
    losses: dict[Layout, dict[str, float]] = {layout: {} for layout in LAYOUT_BITS}  # by machine
    reasons, unknown = [], []
    for name, machine in machines.items():
        used = threads or machine.cores or 1
        rates = {layout: ternary_rate(machine, layout, used) for layout in LAYOUT_BITS}
        known = {layout: rate for layout, rate in rates.items() if rate is not None}
        if len(known) < len(rates):
            unknown.append(name)
            continue
        best = max(known.values())
        for layout, rate in known.items():
            losses[layout][name] = round(best / rate - 1, 2)
        each = ", ".join(f"{layout} {rate / 1e9:.1f}" for layout, rate in known.items())
        reasons.append(f"{name} with {used} {'thread' if used == 1 else 'threads'}: {each} billion weights a second")
    if not reasons:
        first = next(iter(LAYOUT_BITS))
        reason = f"bandwidth and cycles of {', '.join(unknown)} are not known, and {first} takes the fewest cycles"
        return LayoutChoice(first, reason, reason, is_estimated=False)
    if unknown:
        reasons.append(f"{', '.join(unknown)} not known")
    chosen = min(losses, key=lambda layout: max(losses[layout].values()))
    return LayoutChoice(chosen, "; ".join(reasons), _summary(losses[chosen], unknown))


def _summary(losses: Mapping[str, float], unknown: Sequence[str]) -> str:
    """On which machines a layout is the fastest, and on which it is not."""
    said = {
        "the fastest on": [name for name, loss in losses.items() if not loss],
        "not the fastest on": [f"{name} ({loss:.0%} behind)" for name, loss in losses.items() if loss],
        "not known for": unknown,
    }
    return ", ".join(f"{words} {', '.join(names)}" for words, names in said.items() if names)


def ternary_rate(machine: Machine, layout: Layout, threads: int) -> float | None:
    """Ternary weights that a decode step gets through in a second, in the middle of the ranges; None: not known."""
    read, rate = bandwidth(machine, threads), machine.weights_s.get(f"gemv_{layout}")
    if read is None or rate is None:
        return None
    return min(read.middle * 8 / LAYOUT_BITS[layout], rate.middle * min(threads, machine.cores or threads))
