"""What holds a device back for a while, whatever the levers can do: heat, voltage, battery, memory."""

from dataclasses import replace

from edgebit.daemon.governor.latch import Latch
from edgebit.daemon.governor.settings import Readings, Settings
from edgebit.daemon.governor.state import State


def protected(state: State, readings: Readings, celsius: float | None, settings: Settings, now: float) -> State:
    """The state with its latches set and opened. A figure that is not known sets none, and keeps none set for ever."""
    undervoltage = readings.undervoltage is True
    battery = readings.battery if True not in (readings.charging, readings.mains) else None
    hot = _hot(state.hot, readings, celsius, settings, now)
    leaves, joins = settings.battery_pool
    leaves_hot = hot.held and settings.leave_hot
    return replace(
        state,
        hot=hot,
        throttled=state.throttled.after(
            hold=readings.throttled is True,
            well=readings.throttled is not True,
            now=now,
            rest_s=settings.throttled_rest_s,
        ),
        stopped=state.stopped.after(
            hold=celsius is not None and celsius >= settings.stop_c,
            well=celsius is None or celsius < settings.stop_c - 2 * settings.hysteresis_c,
            now=now,
            rest_s=settings.rest_s,
        ),
        voltage=state.voltage.after(
            hold=undervoltage, well=not undervoltage, now=now, rest_s=settings.undervoltage_rest_s
        ),
        battery=_low(state.battery, battery, settings.battery_work, settings, now),
        memory=_high(state.memory, readings.memory_pressure, settings.memory_pressure, settings, now),
        out_of_pool=state.out_of_pool.after(
            hold=leaves_hot or undervoltage or (battery is not None and battery < leaves),
            well=not leaves_hot and not undervoltage and (battery is None or battery > joins),
            now=now,
            rest_s=settings.pool_rest_s,
        ),
    )


def _hot(latch: Latch, readings: Readings, celsius: float | None, settings: Settings, now: float) -> Latch:
    throttled = readings.throttled is True
    upper, lower = settings.target_c + settings.hysteresis_c, settings.target_c - settings.hysteresis_c
    return latch.after(
        hold=throttled or (celsius is not None and celsius >= upper),
        well=not throttled and (celsius is None or celsius < lower),
        now=now,
        rest_s=settings.rest_s,
    )


def _low(latch: Latch, value: float | None, limits: tuple[float, float], settings: Settings, now: float) -> Latch:
    hold, well = value is not None and value < limits[0], value is None or value > limits[1]
    return latch.after(hold=hold, well=well, now=now, rest_s=settings.rest_s)


def _high(latch: Latch, value: float | None, limits: tuple[float, float], settings: Settings, now: float) -> Latch:
    hold, well = value is not None and value > limits[0], value is None or value < limits[1]
    return latch.after(hold=hold, well=well, now=now, rest_s=settings.rest_s)
