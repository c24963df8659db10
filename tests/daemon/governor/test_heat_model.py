"""The heat model: finds the device it is fed with, and stays sane on whatever else comes."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.daemon.governor.heat_model import TAU_S, HeatModel


def fed(model, *, ambient, per_work, tau, work, seconds, start=0, celsius=None, step_c=0.55, seed=1):
    """The model after a first-order device whose sensor counts in `step_c`; and where that device ended."""
    celsius = ambient if celsius is None else celsius
    noise = random.Random(seed)
    for second in range(start, start + seconds):
        celsius += (ambient + per_work * work(second) - celsius) / tau
        shown = round((celsius + noise.gauss(0, 0.2)) / step_c) * step_c
        model = model.seen(float(second), shown, work(second))
    return model, celsius


def bursts(second):
    return 1.0 if second % 400 < 220 else 0.1


@pytest.mark.parametrize(("ambient", "per_work", "tau"), [(45, 40, 120), (30, 60, 240), (55, 25, 60)])
def test_it_finds_the_device(ambient, per_work, tau):
    """With work that varies, steady temperatures come out within 3 C, and the time constant within a third."""
    model, _ = fed(HeatModel(), ambient=ambient, per_work=per_work, tau=tau, work=bursts, seconds=4000)
    assert model.ready
    assert model.steady_c(1.0) == pytest.approx(ambient + per_work, abs=3)
    assert model.steady_c(0.0) == pytest.approx(ambient, abs=3)
    assert model.tau_s == pytest.approx(tau, rel=0.35)


def test_a_prediction_in_time_lies_between_now_and_the_end():
    """after() begins at the temperature of now and ends at steady_c()."""
    model, _ = fed(HeatModel(), ambient=45, per_work=40, tau=120, work=bursts, seconds=3000)
    assert model.after(0.0, 60.0, 1.0) == pytest.approx(60.0)
    assert model.after(1e6, 60.0, 1.0) == pytest.approx(model.steady_c(1.0))
    assert 60.0 < model.after(60.0, 60.0, 1.0) < model.steady_c(1.0)


def test_it_follows_a_fan_that_stops():
    """After half an hour of the new device its end is foreseen, not that of the old one."""
    model, celsius = fed(HeatModel(), ambient=40, per_work=20, tau=120, work=bursts, seconds=3000)
    model, _ = fed(model, ambient=45, per_work=45, tau=120, work=bursts, seconds=2000, start=3000, celsius=celsius)
    assert model.steady_c(1.0) == pytest.approx(90, abs=5)


def test_rest_teaches_nothing_and_forgets_nothing():
    """Hours at rest leave what was known of work, within 10 C."""
    model, celsius = fed(HeatModel(), ambient=45, per_work=40, tau=120, work=bursts, seconds=3000)
    before = model.steady_c(1.0)
    model, _ = fed(
        model, ambient=45, per_work=40, tau=120, work=lambda _: 0.0, seconds=20000, start=3000, celsius=celsius
    )
    assert model.steady_c(1.0) == pytest.approx(before, abs=10)


def test_it_is_not_ready_without_both_rest_and_work():
    """Work that never varies does not tell what work does."""
    model, _ = fed(HeatModel(), ambient=45, per_work=40, tau=120, work=lambda _: 1.0, seconds=3000)
    assert not model.ready


def test_single_outliers_hardly_move_it():
    """A reading that is 10 C off every five minutes moves the steady temperature by little."""
    model, _ = fed(HeatModel(), ambient=45, per_work=40, tau=120, work=bursts, seconds=3000)
    sane = model.steady_c(1.0)
    celsius = 60.0
    for second in range(3000, 6000):
        celsius += (45 + 40 * bursts(second) - celsius) / 120
        model = model.seen(float(second), celsius + (10 if second % 300 == 7 else 0), bursts(second))
    assert model.steady_c(1.0) == pytest.approx(sane, abs=4)


def test_a_jump_of_the_sensor_is_not_learnt():
    """20 C from one second to the next is a sensor's doing: the fit stays, and goes on from there."""
    model, celsius = fed(HeatModel(), ambient=45, per_work=40, tau=120, work=bursts, seconds=3000)
    jumped = model.seen(3000.0, celsius + 20, 1.0)
    assert jumped.fit == model.fit and jumped.window.first_c == celsius + 20


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_left_out(wrong):
    """It ends the window and changes nothing else."""
    model, _ = fed(HeatModel(), ambient=45, per_work=40, tau=120, work=bursts, seconds=600)
    for reading in ((600.0, wrong, 0.5), (600.0, 60.0, wrong), (wrong, 60.0, 0.5)):
        after = model.seen(*reading)
        assert after.fit == model.fit and after.window is None


def test_a_gap_in_time_is_not_learnt():
    """After a minute without readings, or a clock that stood still, a new window begins."""
    model = HeatModel().seen(0.0, 50.0, 1.0).seen(1.0, 51.0, 1.0)
    assert model.seen(61.0, 70.0, 1.0).window.began == 61.0
    assert model.seen(1.0, 51.0, 1.0).window.began == 1.0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-40, 150), st.floats(-1, 2), st.floats(0.1, 8)), min_size=1, max_size=150),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(-40, 150),
)
def test_it_stays_sane_on_any_readings(readings, less, more, celsius):
    """Everything finite, a time constant that a device may have, and more work never makes it cooler."""
    model, now = HeatModel(), 0.0
    for reading, work, elapsed in readings:
        now += elapsed
        model = model.seen(now, reading, work)
    assert all(math.isfinite(value) for value in (*model.fit, *(cell for row in model.covariance for cell in row)))
    assert all(model.covariance[place][place] > 0 for place in range(3))
    assert TAU_S[0] <= model.tau_s <= TAU_S[1]
    less, more = sorted((less, more))
    assert model.after(60.0, celsius, less) <= model.after(60.0, celsius, more) + 1e-9
    assert model.after(60.0, celsius, less) <= model.after(60.0, celsius + 1, less) + 1e-9
