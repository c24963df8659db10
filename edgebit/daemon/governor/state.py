"""What the governor remembers from one look to the next."""

import math
from dataclasses import dataclass, field

from edgebit.daemon.governor.heat_model import HeatModel
from edgebit.daemon.governor.latch import Latch
from edgebit.daemon.governor.surplus import Surplus

_OPEN = Latch()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All of it; State() at the start."""

    model: HeatModel = field(default_factory=HeatModel)
    looked_at: float | None = None
    celsius: float | None = None  # the last that was seen
    celsius_at: float | None = None  # None: there was never a temperature
    is_lost: bool = False  # there was one, and there is none now
    clock_max: float = 0.0  # MHz, the fastest that was seen
    demand: float = 1.0  # smoothed: share of its time that the engine would compute if it were not held back
    speeds: tuple[tuple[int, float], ...] = ()  # tok/s by threads, as last measured
    # The ladder
    level: int = 0
    moved_at: float = -math.inf
    went_down_at: float = -math.inf
    rest_s: float = 0.0  # from moved_at, before the next move up
    surplus: Surplus = field(default_factory=Surplus)
    # What holds it back
    hot: Latch = _OPEN
    throttled: Latch = _OPEN  # by the firmware; for telling it, not for deciding
    stopped: Latch = _OPEN
    voltage: Latch = _OPEN
    battery: Latch = _OPEN
    memory: Latch = _OPEN
    out_of_pool: Latch = _OPEN
