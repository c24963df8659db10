"""Keeping to a temperature: the most work of which a model foresees that the device stays below the target.

A sensor above the target counts more than any model. Going down is quick, going up takes a rest, and a level that was
too much rests twice as long each time, so that the levers come to rest too.
"""

import math
from dataclasses import dataclass, replace

from edgebit.daemon.governor.settings import Level, Readings, Settings, share_of_work
from edgebit.daemon.governor.state import State

_STEPS_DOWN = 2  # at most in one move: a model that errs must not stop the device
_CALM_S = 600.0  # at a level without trouble: then its doubled rest is forgiven


@dataclass(frozen=True, slots=True)
class Forecast:
    """The temperature foreseen at a place of the ladder, if as much is asked of the engine as lately."""

    state: State
    levels: tuple[Level, ...]
    celsius: float | None
    horizon_s: float

    def at(self, place: int) -> float:
        """Degrees at the horizon; -inf where nothing can be foreseen."""
        if self.celsius is None or not self.state.model.ready:
            return -math.inf
        work = self.state.demand * share_of_work(self.levels, place)
        return self.state.model.after(self.horizon_s, self.celsius, work)


def hold_target(
    state: State, levels: tuple[Level, ...], celsius: float | None, readings: Readings, settings: Settings, now: float
) -> State:
    """The state with the level that keeps to the target; at most one move in `down_s` or `rest_s`."""
    foreseen = Forecast(state, levels, celsius, settings.horizon_s)
    upper, lower = settings.target_c + settings.hysteresis_c, settings.target_c - settings.hysteresis_c
    is_over = readings.throttled is True or (celsius is not None and celsius >= upper)
    if is_over or foreseen.at(state.level) > upper:
        if state.level == len(levels) - 1 or now - state.went_down_at < settings.down_s:
            return state
        below = range(state.level + 1, min(state.level + 1 + _STEPS_DOWN, len(levels)))
        fitting = next((place for place in below if foreseen.at(place) <= settings.target_c), below[-1])
        return lowered(state, fitting, settings, now)
    is_cool = not state.hot.held and (celsius is None or celsius < lower)
    is_rested = now - state.moved_at >= max(state.rest_s, settings.rest_s)
    if state.level and is_cool and is_rested and foreseen.at(state.level - 1) <= lower:
        return replace(state, level=state.level - 1, moved_at=now)
    return state


def lowered(state: State, place: int, settings: Settings, now: float) -> State:
    """Down to `place`, or as it is. After a move up that was soon taken back, the next try waits twice as long."""
    if place <= state.level:
        return state
    since_move_s = now - state.moved_at
    if since_move_s >= _CALM_S:
        rest_s = settings.rest_s
    elif state.moved_at > state.went_down_at:
        rest_s = min(2 * max(state.rest_s, settings.rest_s), settings.rest_max_s)
    else:
        rest_s = max(state.rest_s, settings.rest_s)
    return replace(state, level=place, moved_at=now, went_down_at=now, rest_s=rest_s)
