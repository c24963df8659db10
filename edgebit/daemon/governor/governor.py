"""What the engine may do, given how the device is: decide(), a pure function called about once a second.

Two ways with heat (docs/heat.md). Normally the firmware guards the chip, which it does with less loss than anything
outside can; then only what costs heat and brings no speed is shed (surplus.py). Where a temperature must be kept, the
levers keep it, at the price of speed (holding.py). What protects beside that stands in protection.py.
"""

import math
from dataclasses import replace

from edgebit.daemon.governor.holding import hold_target, lowered
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.governor.protection import protected
from edgebit.daemon.governor.settings import Level, Readings, Settings, conservative, ladder, share_of_work
from edgebit.daemon.governor.state import State
from edgebit.daemon.governor.surplus import SETTLE_S, Decoding, Surplus

_SMOOTH_S = 60.0  # of what is asked of the engine
_SPEED_WEIGHT = 0.2  # of a new measurement of speed
_COOL_S = 300.0  # at a level that shed surplus, until all threads come back to a device that is not hot


def decide(state: State, readings: Readings, settings: Settings, now: float) -> tuple[Levers, State]:
    """The levers for the time until the next look, and the state for it. `now` is monotonic seconds."""
    levels = ladder(settings)
    state = replace(state, level=min(state.level, len(levels) - 1))
    celsius, is_lost = _temperature(state, readings, settings, now)
    after = replace(protected(state, readings, celsius, settings, now), is_lost=is_lost)
    least = conservative(levels) if is_lost or after.voltage.held else 0
    if after.stopped.held:
        after = _protected(after, len(levels) - 1, settings, now)
    elif after.level < least:
        after = _protected(after, least, settings, now)
    elif settings.hold_target:
        after = hold_target(after, levels, celsius, readings, settings, now)
    elif not least:
        after = _shed(after, levels, readings, now)
    if after.level < least:
        after = replace(after, level=state.level)
    after = _learnt(after, levels[state.level], levels, readings, now)
    return _levers(after, levels, settings), after


def headroom_c(state: State, settings: Settings) -> float | None:
    """Degrees up to the target; None where the temperature is not known."""
    return None if state.celsius is None else round(settings.target_c - state.celsius, 1)


def steady_c(state: State, settings: Settings) -> float | None:
    """Where the temperature would end if the engine never paused at its level of now; None: not known yet."""
    levels = ladder(settings)
    place = min(state.level, len(levels) - 1)
    return round(state.model.steady_c(share_of_work(levels, place)), 1) if state.model.ready else None


def sustainable_tok_s(state: State, levels: tuple[Level, ...], settings: Settings) -> float | None:
    """The decode speed that heat allows for ever; None while nothing was decoded.

    Where a target is held: at the highest level that keeps to it. Else what was measured last, the firmware's doing
    included.
    """
    if not state.speeds:
        return None
    place = state.level
    if settings.hold_target and state.model.ready:
        places = range(state.level, len(levels))
        steady = (place for place in places if state.model.steady_c(share_of_work(levels, place)) <= settings.target_c)
        place = next(steady, places[-1])
    threads, duty = levels[place].threads, levels[place].duty
    known = dict(state.speeds)
    near = min(known, key=lambda count: abs(count - threads))
    return known[near] * duty * min(1.0, threads / near)


def _temperature(state: State, readings: Readings, settings: Settings, now: float) -> tuple[float | None, bool]:
    """The temperature to go by, and whether a sensor that was there has been lost."""
    if readings.celsius is not None and math.isfinite(readings.celsius):
        return readings.celsius, False
    if state.celsius_at is None:
        return None, False
    is_lost = now - state.celsius_at >= settings.sensor_lost_s
    return (None if is_lost else state.celsius), is_lost


def _protected(state: State, place: int, settings: Settings, now: float) -> State:
    """The state at `place` or lower, which is no level to measure surplus at: a trial that goes on is over."""
    surplus = state.surplus if state.surplus.found_at is not None else Surplus()
    return replace(lowered(state, place, settings, now), surplus=surplus)


def _shed(state: State, levels: tuple[Level, ...], readings: Readings, now: float) -> State:
    """The state with threads shed on a hot device, and given back to one that has cooled."""
    if not (state.hot.held or state.surplus.is_trying):
        is_back = state.level == 0 or now - state.moved_at < _COOL_S
        return state if is_back else replace(state, level=0, moved_at=now)
    if state.level and not state.surplus.is_begun:  # as protection has left it: a trial begins with all threads
        return replace(state, level=0, moved_at=now)
    decoding = None
    if readings.tok_s is not None and now - state.moved_at >= SETTLE_S and state.looked_at is not None:
        seconds = min(now - state.looked_at, SETTLE_S) * min(max(readings.busy, 0.0), 1.0)
        decoding = Decoding(tok_s=readings.tok_s, streams=readings.streams, seconds=seconds)
    level, surplus = state.surplus.tried(state.level, len(levels) - 1, decoding, now)
    return replace(state, level=level, surplus=surplus, moved_at=state.moved_at if level == state.level else now)


def _learnt(state: State, level: Level, levels: tuple[Level, ...], readings: Readings, now: float) -> State:
    """What this look tells of the time since the one before, in which the levers stood at `level`."""
    threads = level.threads if readings.threads is None else readings.threads
    busy = min(max(readings.busy, 0.0), 1.0)
    clock_max = max(state.clock_max, readings.clock or 0.0)
    clock = (readings.clock or clock_max) / clock_max if clock_max else 1.0
    elapsed = 0.0 if state.looked_at is None else max(now - state.looked_at, 0.0)
    weight = 1 - math.exp(-elapsed / _SMOOTH_S)
    celsius = readings.celsius if readings.celsius is not None and math.isfinite(readings.celsius) else None
    work = busy * threads / levels[0].threads * clock**2
    return replace(
        state,
        looked_at=now,
        model=state.model if celsius is None else state.model.seen(now, celsius, work),
        celsius=state.celsius if celsius is None else celsius,
        celsius_at=state.celsius_at if celsius is None else now,
        clock_max=clock_max,
        demand=state.demand + weight * (min(busy / level.duty, 1.0) - state.demand),
        speeds=_speeds(state.speeds, threads, readings.tok_s),
    )


def _speeds(speeds: tuple[tuple[int, float], ...], threads: int, tok_s: float | None) -> tuple[tuple[int, float], ...]:
    if tok_s is None or not 0 < tok_s < math.inf:
        return speeds
    known = dict(speeds)
    before = known.get(threads, tok_s)
    known[threads] = before + _SPEED_WEIGHT * (tok_s - before)
    return tuple(sorted(known.items()))


def _levers(state: State, levels: tuple[Level, ...], settings: Settings) -> Levers:
    level = levels[state.level]
    closed_by = {"hot": state.stopped.held, "battery_low": state.battery.held, "memory_short": state.memory.held}
    causes = [code for code, holds in closed_by.items() if holds]
    return Levers(
        threads=level.threads if settings.threads_max else 0,
        duty=level.duty,
        admit=not causes,
        closed_by=causes[0] if causes else "",
        in_pool=not causes and not state.out_of_pool.held and not state.is_lost,
        hot=state.hot.held or state.stopped.held,
        sustainable_tok_s=sustainable_tok_s(state, levels, settings),
        reason=_reason(state, levels),
    )


def _reason(state: State, levels: tuple[Level, ...]) -> str:
    causes = {
        "far too hot": state.stopped.held,
        "hot": state.hot.held and not state.stopped.held,
        "the temperature sensor is lost": state.is_lost,
        "undervoltage": state.voltage.held,
        "the battery is almost empty": state.battery.held,
        "memory is short": state.memory.held,
    }
    words = [cause for cause, holds in causes.items() if holds]
    level = levels[state.level]
    if level.threads < levels[0].threads:
        words.append(f"{level.threads} of {levels[0].threads} threads")
    if level.duty < 1:
        words.append(f"computing {level.duty:.0%} of the time")
    return ", ".join(words)
