"""A first-order model of how a device warms, fitted while it runs.

    dT/dt = (T_ambient + R * P(work) - T) / tau,  taken as  dT/dt = a + b T + c work

`work` is how hard the engine works, 0 to 1: its busy share x the share of the cores x the clock's share, squared.
A window of some seconds gives one line of a least squares fit in integral form, T(end) - T(begin) = the integral of the
right side, which holds however the work varies within and needs no derivative of a sensor with steps of half a degree.
Lines count less the older they are (recursive least squares with forgetting), and each takes the place only of what it
tells itself: a device that idles for a week keeps what it knew of work. The fit is held to what a device can be. What
does not fit is cut down (outliers), and where the temperature jumps nothing is learnt; but when nothing fits any more,
the device has changed (a fan that stopped), and all is learnt anew. Everything here is pure.
"""

import math
from dataclasses import dataclass, replace

TAU_S = (20.0, 2000.0)  # what the time constant of a device may be
WINDOW_S = 15.0
MAX_GAP_S = 5.0  # between two readings; a longer one ends the window, unlearnt
MAX_STEP_C = 12.0  # from one reading to the next; more is a sensor's jump
READY_WINDOWS = 8
READY_SPREAD = 0.25  # of work, between the least and the most that was seen
_FORGET = 0.985  # a window: half is forgotten after 46, about 11 minutes
_VARIANCE = 4.0  # of a measured rise, (C in 100 s) squared: a sensor's step of half a degree in WINDOW_S
_OUTLIER = 4.0  # times the noise: no single error counts for more
_CHANGED = 2.5  # times the noise, in the last few errors: the device has changed, and all is uncertain again
_NOISE_LEAST, _NOISE_WEIGHT, _RECENT_WEIGHT = 1.5, 0.05, 0.3
_CENTRE_C, _SCALE_C, _SCALE_S = 60.0, 10.0, 100.0  # so that the three figures are of one size

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

# Before anything was seen: 180 s, 50 C at rest and 90 C at full work, each very uncertain.
_PRIOR: Vector = (-5.56, -5.56, 22.2)
_PRIOR_COVARIANCE: Matrix = ((60.0, 0.0, 0.0), (0.0, 9.0, 0.0), (0.0, 0.0, 200.0))


@dataclass(frozen=True, slots=True)
class Window:
    """What has come since the last line of the fit."""

    began: float  # monotonic seconds
    first_c: float
    at: float
    last_c: float
    temperature: float = 0.0  # the integrals, in C s and s
    work: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatModel:
    """What is known of the device's heat; seen() gives the next one."""

    fit: Vector = _PRIOR
    covariance: Matrix = _PRIOR_COVARIANCE
    window: Window | None = None
    windows: int = 0  # learnt from
    spread: tuple[float, float] = (1.0, 0.0)  # least and most work seen
    noise: float = 2.0  # smoothed |error| of a prediction, C in 100 s
    recent: float = 2.0  # the same, of the last few

    @property
    def tau_s(self) -> float:
        """The time constant in seconds."""
        return -_SCALE_C * _SCALE_S / self.fit[1]

    @property
    def ready(self) -> bool:
        """Whether enough was seen, at different work, for predictions to be worth something."""
        return self.windows >= READY_WINDOWS and self.spread[1] - self.spread[0] >= READY_SPREAD

    def steady_c(self, work: float) -> float:
        """Where the temperature ends if the device goes on working so."""
        a, b, c = self.fit
        return _CENTRE_C - _SCALE_C * (a + c * work) / b

    def after(self, seconds: float, now_c: float, work: float) -> float:
        """The temperature in so many seconds of such work; never falls as `now_c` or `work` grow."""
        steady = self.steady_c(work)
        return steady + (now_c - steady) * math.exp(-seconds / self.tau_s)

    def seen(self, now: float, celsius: float, work: float) -> "HeatModel":
        """The model after one more reading, at monotonic second `now`; `work` is that since the reading before."""
        if not (math.isfinite(celsius) and math.isfinite(work) and math.isfinite(now)):
            return replace(self, window=None)
        work = min(max(work, 0.0), 1.0)
        window = self.window
        if window is None or not 0 < now - window.at <= MAX_GAP_S or abs(celsius - window.last_c) > MAX_STEP_C:
            return replace(self, window=Window(now, celsius, now, celsius))
        elapsed = now - window.at
        window = Window(
            window.began,
            window.first_c,
            now,
            celsius,
            window.temperature + elapsed * (celsius + window.last_c) / 2,
            window.work + elapsed * work,
        )
        if now - window.began < WINDOW_S:
            return replace(self, window=window)
        return self._learnt(window)

    def _learnt(self, window: Window) -> "HeatModel":
        length = window.at - window.began
        mean_c, work = window.temperature / length, window.work / length
        line: Vector = (1.0, (mean_c - _CENTRE_C) / _SCALE_C, work)
        rise = (window.last_c - window.first_c) / length * _SCALE_S
        after = replace(
            self,
            window=Window(window.at, window.last_c, window.at, window.last_c),
            spread=(min(self.spread[0], work), max(self.spread[1], work)),
        )
        gain_from = _times(self.covariance, line)
        uncertainty = _dot(line, gain_from)
        error = rise - _dot(self.fit, line)
        bound = _OUTLIER * max(self.noise, _NOISE_LEAST)
        is_settled = self.windows >= READY_WINDOWS
        if is_settled:
            error = min(max(error, -bound), bound)
        recent = self.recent + _RECENT_WEIGHT * (abs(error) - self.recent)
        if is_settled and recent > _CHANGED * max(self.noise, _NOISE_LEAST):
            return replace(after, covariance=_PRIOR_COVARIANCE, recent=self.noise)
        gain = error / (_VARIANCE + uncertainty)
        fit = (
            self.fit[0] + gain * gain_from[0],
            self.fit[1] + gain * gain_from[1],
            self.fit[2] + gain * gain_from[2],
        )
        return replace(
            after,
            fit=_physical(fit),
            covariance=_bounded(_updated(self.covariance, gain_from, uncertainty / _VARIANCE)),
            windows=self.windows + 1,
            noise=self.noise + _NOISE_WEIGHT * (abs(error) - self.noise),
            recent=recent,
        )


def _physical(fit: Vector) -> Vector:
    """The nearest that a device can be: a time constant within TAU_S, and work that never cools."""
    a, b, c = fit
    fastest, slowest = (-_SCALE_C * _SCALE_S / tau for tau in TAU_S)
    return (min(max(a, -500.0), 500.0), min(max(b, fastest), slowest), min(max(c, 0.0), 1000.0))


def _dot(left: Vector, right: Vector) -> float:
    return left[0] * right[0] + left[1] * right[1] + left[2] * right[2]


def _times(matrix: Matrix, vector: Vector) -> Vector:
    return _dot(matrix[0], vector), _dot(matrix[1], vector), _dot(matrix[2], vector)


def _updated(covariance: Matrix, gain_from: Vector, known: float) -> Matrix:
    """The covariance after one line, forgetting only in the direction of that line; symmetric by construction.

    known: the line's own uncertainty, in shares of a measurement's
    Source: Kulhavy 1987, "Restricted exponential forgetting in real-time identification", Automatica 23.
    """
    weight = _FORGET - (1 - _FORGET) / max(known, 1e-9)
    share = 0.0 if weight == 0 else 1 / (_VARIANCE * (1 / weight + known))

    def cell(row: int, column: int) -> float:
        return covariance[row][column] - share * gain_from[row] * gain_from[column]

    return (
        (cell(0, 0), cell(0, 1), cell(0, 2)),
        (cell(0, 1), cell(1, 1), cell(1, 2)),
        (cell(0, 2), cell(1, 2), cell(2, 2)),
    )


def _bounded(covariance: Matrix) -> Matrix:
    """No more uncertain than at the beginning, in any direction: forgetting alone would let it grow without end."""
    rows = range(3)
    excess = max(covariance[place][place] / _PRIOR_COVARIANCE[place][place] for place in rows)
    if not math.isfinite(excess) or any(covariance[place][place] <= 0 for place in rows):
        return _PRIOR_COVARIANCE
    if excess <= 1:
        return covariance
    first, second, third = ((row[0] / excess, row[1] / excess, row[2] / excess) for row in covariance)
    return first, second, third
