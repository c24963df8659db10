"""Whether the device may stand in for others now: decide(), a pure function called at each turn of the main loop."""

from dataclasses import dataclass

from edgebit.daemon.config.sections import PoolConfig

WORKING_STATES = frozenset({"ready", "busy", "hot"})  # whether heat is a reason the governor says, in `held_back`


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """How the device is."""

    connected: bool  # by the connection that its answers go over
    state: str  # as `status` says it
    held_back: str | None  # why the governor wants it out; None where it does not
    waiting: int  # jobs beyond those that the engine computes at once


@dataclass(frozen=True, slots=True)
class Membership:
    """In or out, and why."""

    is_in: bool = False
    reason: str = "the device is starting"
    well_since: float | None = None  # since when nothing has spoken against it


def decide(before: Membership, fitness: Fitness, config: PoolConfig, now: float) -> Membership:
    """The membership from now on: out at once, in again only after a while without a reason to be out.

    `now` is monotonic seconds.
    """
    why = _hindrance(fitness, config.leave_queue if before.is_in else config.rejoin_queue + 1)
    if why is not None:
        return Membership(False, why)
    if before.is_in:
        return before
    since = now if before.well_since is None else before.well_since
    if now - since >= config.rejoin_s:
        return Membership(True, "the device is well", since)
    return Membership(False, before.reason, since)


def _hindrance(fitness: Fitness, queue_bound: int) -> str | None:
    if not fitness.connected:
        return "the device is not connected"
    if fitness.state not in WORKING_STATES:
        return f"the device says {fitness.state}"
    if fitness.held_back is not None:
        return fitness.held_back or "the device is held back"
    if fitness.waiting >= queue_bound:
        return f"too many jobs wait: {fitness.waiting}"
    return None
