"""Two points of a meter that is believed, for a source of power that is not: what [power] calibration is made from."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgebit.daemon.config.sections import PowerConfig
from edgebit.daemon.sensors.power import Correction, Power
from edgebit.daemon.sensors.reading import NotYet, Unreadable
from edgebit.errors import SensorError

SECONDS = 20.0  # of each point: the Pi's power chip is noisy
_LEAST_SAMPLES = 3
_PATIENCE_S = 5.0  # until a source has so many
_STEADY = 0.1  # of the mean: power that swings by more is no point
_BARE = (0.0, 0.0, 1.0, 1.0)  # calibrated to what it says: the PMIC gives its bare sum then, as with any calibration


@dataclass(frozen=True, slots=True)
class Said:
    """What a source said for a while."""

    kind: str
    source: str
    watts: float
    least_w: float
    most_w: float

    @property
    def is_steady(self) -> bool:
        """Whether a meter beside it can have had one figure meanwhile."""
        return self.most_w - self.least_w <= _STEADY * self.watts


def uncalibrated(config: PowerConfig) -> PowerConfig:
    """The same sources, as they are themselves."""
    return dataclasses.replace(config, calibration=_BARE)


def listen(
    power: Power, seconds: float, *, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None]
) -> Said:
    """The mean of what the source says in the next seconds. Raises SensorError where that is too little."""
    begin = clock()
    found: dict[float, float] = {}
    why: Unreadable | None = None
    source = ""
    while clock() - begin < seconds or (len(found) < _LEAST_SAMPLES and clock() - begin < _PATIENCE_S):
        try:
            sample = power.sample()
            if sample.at >= begin:
                found[sample.at], source = sample.watts, sample.source.removesuffix(", calibrated")
        except NotYet:
            pass
        except Unreadable as error:
            why = error
        wait(power.every_s)
    if len(found) < _LEAST_SAMPLES:
        reason = str(why) if why is not None else f"{len(found)} samples in {clock() - begin:.0f} s"
        raise SensorError(f"there is no power to calibrate: {reason}")
    each = found.values()
    return Said(power.kind, source, sum(each) / len(each), min(each), max(each))


def settings(idle: Said, idle_true_w: float, busy: Said, busy_true_w: float) -> Sequence[str]:
    """The lines of [power]. Raises SensorError where the points make no line."""
    if idle.kind != busy.kind:
        raise SensorError(f"the source changed from {idle.source} to {busy.source}: name one with [power] source")
    points = [round(watts, 3) for watts in (idle.watts, idle_true_w, busy.watts, busy_true_w)]
    try:
        Correction.through(points, None)
    except ValueError as error:
        raise SensorError(f"these two points cannot be used: {error}. Take one at rest and one at full work") from error
    return [f'source = "{idle.kind}"', f"calibration = {points}"]
