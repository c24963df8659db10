"""decide() at its place in the daemon: once a second from readings to levers, and what is told of it."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgebit.daemon.config.sections import GovernorConfig
from edgebit.daemon.contract.events import EventName
from edgebit.daemon.governor.governor import decide, headroom_c, steady_c
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.governor.settings import Readings, Settings
from edgebit.daemon.governor.state import State

LOOK_S = 1.0


class Reading(Protocol):
    """What is needed of one of the sensors' readings."""

    @property
    def value(self) -> float | None:
        """None: absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What the engine did since the look before."""

    threads: int  # that it was opened with; 0: there is none yet
    threads_fixed: bool = False  # it cannot compute with fewer
    busy: float  # share of the time that it computed
    tok_s: float | None = None  # decode speed while it computed
    streams: int = 1  # answers decoded together


@dataclass(frozen=True, slots=True)
class Happening:
    """A rare fact for the `event` topic."""

    event: EventName
    facts: Mapping[str, Any]


class Steering:
    """One thread's: look() when due(), then the levers, and what there is to tell."""

    def __init__(self, config: GovernorConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._state = State()
        self._settings = _settings(config, Engine(threads=1, busy=0.0))
        self._looked_at: float | None = None
        self.levers = Levers()

    def due(self) -> bool:
        """Whether it is time for a look; never where the governor is off."""
        return self._config.mode != "off" and (self._looked_at is None or self._clock() - self._looked_at >= LOOK_S)

    def look(self, readings: Mapping[str, Reading], engine: Engine) -> list[Happening]:
        """Take a look and set the levers; gives what has happened since the one before."""
        now = self._looked_at = self._clock()
        self._settings = _settings(self._config, engine)
        before, levers_before = self._state, self.levers
        self.levers, self._state = decide(before, _look(readings, engine), self._settings, now)
        return list(_happenings(before, self._state, levers_before, self.levers, self._settings))

    def status(self) -> dict[str, Any]:
        """The governor's part of the status document."""
        return {"headroom_c": headroom_c(self._state, self._settings), "held_back": self.levers.reason or None}

    def metrics(self) -> dict[str, Any]:
        """What it knows and does, for metrics."""
        levers, model = self.levers, self._state.model
        known = self._config.mode != "off"
        return {
            "mode": self._config.mode,
            "threads": levers.threads,
            "duty": levers.duty,
            "admit": levers.admit,
            "in_pool": levers.in_pool,
            "headroom_c": headroom_c(self._state, self._settings),
            "t_ss": steady_c(self._state, self._settings) if known else None,
            "tau_s": round(model.tau_s, 1) if model.ready else None,
            "sustainable_tok_s": None if levers.sustainable_tok_s is None else round(levers.sustainable_tok_s, 2),
            "reason": levers.reason,
        }


def _settings(config: GovernorConfig, engine: Engine) -> Settings:
    return Settings(
        threads_max=engine.threads,
        lower_threads=not engine.threads_fixed,
        hold_target=config.mode == "temperature",
        leave_hot=config.mode == "temperature",
        target_c=config.target_c,
        stop_c=config.stop_c,
        battery_pool=(config.battery_pool, config.battery_pool + 10),
        battery_work=(config.battery_work, config.battery_work + 5),
        memory_pressure=(config.memory_pressure, config.memory_pressure / 4),
        rest_s=config.rest_s,
    )


def _look(readings: Mapping[str, Reading], engine: Engine) -> Readings:
    def value(name: str) -> float | None:
        return readings[name].value if name in readings else None

    def flag(name: str) -> bool | None:
        found = value(name)
        return None if found is None else found > 0

    return Readings(
        celsius=value("t_soc"),
        clock=value("clock"),
        throttled=flag("throttled"),
        undervoltage=flag("undervoltage"),
        battery=value("battery"),
        charging=flag("charging"),
        mains=flag("mains"),
        memory_pressure=value("psi_memory_full"),
        busy=engine.busy,
        tok_s=engine.tok_s,
        streams=engine.streams,
    )


def _happenings(
    before: State, after: State, levers_before: Levers, levers: Levers, settings: Settings
) -> Iterator[Happening]:
    fewer = ": half of the threads for a while" if settings.lower_threads else ""
    heat = {"value": after.celsius, "limit": settings.target_c, "unit": "C"}
    if after.throttled.held and not before.throttled.held:
        yield Happening("throttled", {"value": after.celsius, "unit": "C", "message": "the firmware slows the cores"})
    if after.voltage.held and not before.voltage.held:
        yield Happening("undervoltage", {"message": f"the power supply is too weak{fewer}"})
    if after.is_lost and not before.is_lost:
        held_back = "half of the threads until it is back" if settings.lower_threads else "the temperature is not known"
        yield Happening("sensor_lost", {"name": "t_soc", "message": held_back})
    if levers.hot != levers_before.hot:
        yield Happening("hot" if levers.hot else "cooled", {**heat, "reason": levers.reason})
    if levers.admit != levers_before.admit:
        yield Happening("admission_opened" if levers.admit else "admission_closed", {"reason": levers.reason})
