"""Two devices that stand in for each other: what it brings that a hot one leaves the pool.

As with a shared subscription the broker deals requests to its members in turn, whatever they have to do; a request that
one refuses its caller sends again, and it comes to the other one.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.governor.settings import Settings
from edgebit.simulate.run import Bench, Control, Result, Work, arrivals


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What is simulated: a device of each case, in the same air."""

    cases: Sequence[str]
    work: Work  # of the pool, with requests at random moments
    ambient_c: float = 25.0
    duration_s: int = 3600
    threads: int = 4


@dataclass(frozen=True, slots=True)
class PoolResult:
    """What came of it."""

    name: str
    devices: Sequence[Result]
    refused: int  # by all members, or with none of them there
    out_s: Sequence[int]  # seconds that each device was out of the pool


def compare_pools(pool: Pool) -> list[PoolResult]:
    """With the firmware alone; with the governor, the pool aside; with a hot device that leaves it."""

    def governed(name: str, *, hold: bool, leave_hot: bool) -> Control:
        settings = Settings(threads_max=pool.threads, hold_target=hold, leave_hot=leave_hot)
        return Control(name=name, threads=pool.threads, settings=settings)

    controls = [
        Control(name="off", threads=pool.threads),
        governed("speed", hold=False, leave_hot=False),
        governed("speed, out while hot", hold=False, leave_hot=True),
        governed("temperature", hold=True, leave_hot=False),
        governed("temperature, out while hot", hold=True, leave_hot=True),
    ]
    return [run_pool(control, pool) for control in controls]


def run_pool(control: Control, pool: Pool) -> PoolResult:
    """Simulate; the same arguments give the same result."""
    benches = [Bench(case, pool.ambient_c, pool.work, control) for case in pool.cases]
    coming = deque(arrivals(pool.work, pool.duration_s))
    refused, turn = 0, 0
    out_s = [0] * len(benches)
    for second in range(pool.duration_s):
        members = [place for place, bench in enumerate(benches) if bench.levers.in_pool]
        for place in set(range(len(benches))) - set(members):
            out_s[place] += 1
        while coming and coming[0] < second + 1:
            at = coming.popleft()
            turn += 1
            offered = [benches[members[(turn + more) % len(members)]] for more in range(len(members))]
            taker = next((bench for bench in offered if bench.takes), None)
            if taker is None:
                refused += 1
            else:
                taker.ask(at)
        for bench in benches:
            bench.second(second)
    return PoolResult(control.name, [bench.result for bench in benches], refused, out_s)


def pool_row(result: PoolResult) -> dict[str, Any]:
    """The figures of one result, for both devices together; those of each in their order where they differ."""
    waits = sorted(wait for device in result.devices for wait in device.waits)
    joules = sum(sample.watts for device in result.devices for sample in device.samples)
    tokens = sum(sample.tok_s for device in result.devices for sample in device.samples)
    return {
        "control": result.name,
        "answered": sum(device.answered for device in result.devices),
        "refused": result.refused + sum(device.refused for device in result.devices),
        "tok_s": round(tokens / len(result.devices[0].samples), 2),
        "wait_p50_s": round(waits[len(waits) // 2], 1) if waits else None,
        "wait_p95_s": round(waits[int(0.95 * (len(waits) - 1))], 1) if waits else None,
        "joules_per_token": round(joules / tokens, 3) if tokens else None,
        "over_limit_s": [device.over_s for device in result.devices],
        "max_c": [round(device.max_c, 1) for device in result.devices],
        "answered_by": [device.answered for device in result.devices],
        "out_of_pool_s": list(result.out_s),
    }
