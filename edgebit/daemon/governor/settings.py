"""What the governor is told, and what it sees: its limits, and one look at the device."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The governor's limits; [governor] of edgebitd.toml has those that a person may want to set."""

    threads_max: int  # that the engine was opened with; 0: there is none yet
    hold_target: bool = False  # keep to target_c, at the price of speed; else shed what costs heat and brings no speed
    target_c: float = 78.0
    stop_c: float = 90.0  # from here on no new work, and the least levers
    hysteresis_c: float = 2.0  # above and below the target, within which nothing moves
    lower_threads: bool = True  # the levers that may be moved
    pace: bool = True  # where the target is held
    horizon_s: float = 60.0  # a burst that ends sooner than heat comes is not slowed down
    rest_s: float = 30.0  # from one move until a lever goes back up, doubled for a level that was too much
    rest_max_s: float = 960.0
    down_s: float = 10.0  # from one move down to the next
    leave_hot: bool = False  # whether a hot device leaves its pool
    pool_rest_s: float = 120.0  # well for so long, before the device stands in for others again
    sensor_lost_s: float = 5.0
    undervoltage_rest_s: float = 120.0
    throttled_rest_s: float = 600.0  # without it for so long, before it is told anew
    battery_pool: tuple[float, float] = (30.0, 40.0)  # %, on battery: leaves below, joins above
    battery_work: tuple[float, float] = (10.0, 15.0)  # %, on battery: no new work below, again above
    memory_pressure: tuple[float, float] = (20.0, 5.0)  # % of full PSI: no new work above, again below


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """One look at the device; None: not known, which is never taken for a 0."""

    celsius: float | None = None
    clock: float | None = None  # MHz
    throttled: bool | None = None  # by the firmware, now
    undervoltage: bool | None = None  # now
    battery: float | None = None  # %
    charging: bool | None = None
    mains: bool | None = None  # the battery need not feed the device
    memory_pressure: float | None = None  # % of the last 10 s in which all of the system waited for memory
    busy: float = 0.0  # share of the time since the last look that the engine computed
    tok_s: float | None = None  # decode speed while it computed; None: too little was decoded to tell
    streams: int = 1  # answers that were decoded together
    threads: int | None = None  # that it computed with; None: as the levers said


@dataclass(frozen=True, slots=True)
class Level:
    """A place on the ladder of levers."""

    threads: int
    duty: float


PACES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def ladder(settings: Settings) -> tuple[Level, ...]:
    """All levels from the most heat to the least, which is what is left at the hard stop.

    Fewer threads first, since decode is bound by memory and loses little by it; then pauses; as far as both may move.
    """
    most = max(settings.threads_max, 1)
    counts = range(most, 0, -1) if settings.lower_threads else (most,)
    levels = [Level(threads, 1.0) for threads in counts]
    if settings.pace and settings.hold_target:
        levels += [Level(levels[-1].threads, duty) for duty in PACES]
    return tuple(levels)


def conservative(levels: tuple[Level, ...]) -> int:
    """The place to take where the temperature cannot be seen any more: half of the work, or the nearest to it."""
    half = levels[0].threads * levels[0].duty / 2
    places = range(len(levels))
    return next((place for place in places if levels[place].threads * levels[place].duty <= half), places[-1])


def share_of_work(levels: tuple[Level, ...], place: int) -> float:
    """What a place leaves of all the work that the device could do."""
    return levels[place].threads * levels[place].duty / levels[0].threads
