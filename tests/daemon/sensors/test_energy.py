"""Energy of work, against sources of power whose integrals are known by heart."""

import random

import pytest

from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.sensors.energy_ledger import EnergyLedger
from edgebit.daemon.sensors.energy_meter import Drawn, EnergyMeter
from edgebit.daemon.sensors.power import PowerSample


def sample(at, watts, **more):
    return PowerSample(**{"at": at, "watts": watts, "source": "ina", "error": 0.0, **more})


def sampled(course, times, **more):
    meter = EnergyMeter(3.0)
    for at in times:
        meter.add(sample(at, course(at), **more))
    return meter


def drawn(meter, begin, end):
    whole = Drawn()
    for part in meter.parts(begin, end):
        whole.add(*part)
    return whole


@pytest.mark.parametrize(("begin", "end"), [(0, 10), (2.5, 7.25), (3.1, 3.2), (0, 0.1), (9.9, 10)])
@pytest.mark.parametrize("slope", [0.0, 0.5, -0.2])
def test_power_that_changes_in_a_straight_line_is_integrated_exactly(slope, begin, end):
    """Whatever part of the samples the work overlaps."""
    meter = sampled(lambda at: 5 + slope * at, range(11))
    exact = 5 * (end - begin) + slope * (end**2 - begin**2) / 2
    whole = drawn(meter, begin, end)
    assert whole.joules == pytest.approx(exact) and whole.missing_s == 0


@pytest.mark.parametrize("seed", range(10))
def test_the_error_holds_for_power_that_jumps_between_samples(seed):
    """Power is 3 W but for one stretch of 9 W, and samples come at any times: the truth lies within what is unsure."""
    chance = random.Random(seed)
    rise, fall = sorted(chance.uniform(5, 25) for _ in range(2))
    fall = max(fall, rise + 2.0)  # a stretch that no sample falls into is seen by none

    def course(at):
        return 9.0 if rise <= at < fall else 3.0

    times, at = [], 0.0
    while at < 30:
        times.append(at)
        at += chance.uniform(0.1, 1.5)
    meter = sampled(course, times)
    begin, end = sorted(chance.uniform(0.5, 28) for _ in range(2))
    exact = 3 * (end - begin) + 6 * max(0.0, min(end, fall) - max(begin, rise))
    whole = drawn(meter, begin, end)
    assert abs(whole.joules - exact) <= whole.unsure_j + 1e-9, seed


def test_a_gap_makes_only_its_own_time_unknown():
    """4 s without a sample, where samples 3 s apart are taken together: who worked before it is not touched."""
    meter = sampled(lambda at: 5.0, [0, 1, 2, 3, 7, 8, 9])
    assert drawn(meter, 0, 3).joules == pytest.approx(15)
    across = drawn(meter, 2, 8)
    assert across.missing_s == pytest.approx(4) and "not sampled" in across.why
    assert drawn(meter, 7, 9).missing_s == 0
    assert (meter.total_j, meter.missing_s) == (pytest.approx(25), 4)


def test_the_reason_of_a_gap_is_the_meters_own():
    """What the source said when it failed."""
    meter = sampled(lambda at: 5.0, [0, 1])
    meter.lost("/dev/ttyUSB0: silent for 4 s")
    meter.lost("something later")
    meter.add(sample(8, 5.0))
    assert drawn(meter, 0, 8).why == "/dev/ttyUSB0: silent for 4 s"


def test_another_source_is_not_mixed_with_the_one_before():
    """One may be the whole device, the other its processor."""
    meter = sampled(lambda at: 5.0, [0, 1])
    meter.add(sample(2, 2.0, source="rapl"))
    assert drawn(meter, 0, 2).missing_s == 1 and "from ina to rapl" in drawn(meter, 0, 2).why


def test_averages_of_a_counter_are_exact_over_whole_intervals():
    """RAPL knows the energy of each interval, only not its course within."""
    meter = EnergyMeter(3.0)
    for at, watts in ((1, 10), (2, 30), (5, 20)):
        meter.add(sample(at, watts, since=at - 1 if at < 5 else 2))
    whole = drawn(meter, 0, 5)
    assert (whole.joules, whole.unsure_j, whole.missing_s) == (10 + 30 + 60, 0, 0)
    part = drawn(meter, 1.5, 2)
    assert part.joules == 15 and part.unsure_j >= 0.5 * 20


def test_what_came_before_the_first_sample_is_unknown():
    """And without any sample all of it."""
    meter = EnergyMeter(3.0)
    assert drawn(meter, 0, 2).missing_s == 2
    meter.add(sample(5, 4.0))
    assert drawn(meter, 0, 2).missing_s == 2 and drawn(meter, 4, 5).missing_s == 1
    meter.add(sample(6, 4.0))
    assert drawn(meter, 4, 6).missing_s == 1 and drawn(meter, 5, 6).joules == 4


def test_samples_that_come_twice_count_once():
    """A slow source says the same again until it has more."""
    meter = sampled(lambda at: 5.0, [0, 1, 1, 1, 2])
    assert meter.total_j == 10


class Bench:
    """A ledger with a clock of the test's."""

    def __init__(self, gap_s=3.0):
        self.now = 0.0
        self.ledger = EnergyLedger(gap_s, clock=lambda: self.now)

    def power(self, watts, *times, **more):
        for at in times:
            self.now = at
            self.ledger.add(sample(at, watts, **more))


@pytest.fixture
def bench():
    return Bench()


def test_one_job(bench):
    """The whole device's energy during its steps."""
    bench.power(5.0, 0, 1)
    bench.ledger.record(0.5, 1.0, {"a": 1})
    bench.power(5.0, 2, 3)
    bench.ledger.record(1.0, 2.5, {"a": 1})
    energy = bench.ledger.close("a")
    assert (energy.joules, energy.source, energy.measured, energy.error) == (pytest.approx(10.0), "ina", True, 0.0)


def test_jobs_of_one_step_share_it_by_their_weights(bench):
    """What they are given adds up to what the engine took."""
    bench.power(6.0, 0, 1, 2, 3)
    bench.ledger.record(0.0, 2.0, {"a": 3, "b": 1})
    bench.ledger.record(2.0, 3.0, {"b": 0.4})
    assert bench.ledger.close("a").joules == pytest.approx(9.0)
    assert bench.ledger.close("b").joules == pytest.approx(3.0 + 6.0)


@pytest.mark.parametrize("seed", range(10))
def test_all_jobs_together_get_all_that_was_drawn(seed):
    """Any steps, any shares, settled at any moment: the sum is the engine's time times the power."""
    chance, bench = random.Random(seed), Bench()
    bench.power(4.0, 0, 0.5)
    at, worked, settled, alive = 0.6, 0.0, 0.0, set()
    for number in range(100):
        begin, end = at, at + chance.uniform(0.05, 0.6)
        alive.add(number)
        bench.ledger.record(begin, end, {key: chance.uniform(0.1, 5) for key in alive})
        worked += end - begin
        at = end + chance.uniform(0, 0.1)
        if chance.random() < 0.7:
            bench.power(4.0, at)
        for key in [key for key in alive if chance.random() < 0.3]:
            alive.remove(key)
            settled += bench.ledger.close(key).joules
    settled += sum(bench.ledger.close(key).joules for key in alive)
    assert settled == pytest.approx(4.0 * worked), seed


def test_what_samples_have_not_reached_is_taken_to_be_as_the_last(bench):
    """A reply does not wait for the next sample; the error says how much power has swung of late."""
    bench.power(4.0, 0, 1)
    bench.power(6.0, 2)
    bench.ledger.record(2.0, 3.0, {"a": 1})
    energy = bench.ledger.close("a")
    assert energy.joules == pytest.approx(6.0) and energy.error == pytest.approx(2.0 / 6.0)


def test_the_sources_error_stays_and_the_samplings_shrinks(bench):
    """A meter that says 4 % too much says so all the time; what falls between samples goes both ways."""
    for second in range(400):
        bench.power(4.0 + 0.8 * (second % 2), second, error=0.04)
    bench.ledger.record(100.0, 104.0, {"short": 1})
    bench.ledger.record(200.0, 300.0, {"long": 1})
    short, long = bench.ledger.close("short").error - 0.04, bench.ledger.close("long").error - 0.04
    assert short > 0.05 and long == pytest.approx(short / 5)


def test_steps_within_one_interval_have_one_error(bench):
    """Not one each, which would shrink as they get more."""
    errors = []
    for steps in (1, 50):
        bench = Bench()
        for second in range(10):
            bench.power(4.0 + second % 2, second)
        for step in range(steps):
            bench.ledger.record(8 + step / steps, 8 + (step + 1) / steps, {"a": 1})
        errors.append(bench.ledger.close("a").error)
    assert errors[1] == pytest.approx(errors[0])


def test_a_source_of_unknown_error_gives_energy_of_unknown_error(bench):
    """Not an error of the sampling alone, which would look good."""
    bench.power(4.0, 0, 1, error=None, measured=False, covers="processor")
    bench.ledger.record(0.0, 1.0, {"a": 1})
    energy = bench.ledger.close("a")
    assert (energy.error, energy.measured, energy.covers) == (None, False, "processor")


def test_no_power_sensor(bench):
    """The reason is the sensor's own."""
    bench.ledger.lost("no power sensor (looked for: ina)")
    bench.ledger.record(0.0, 1.0, {"a": 1})
    energy = bench.ledger.close("a")
    assert (energy.joules, energy.absent) == (None, "no power sensor (looked for: ina)")
    assert energy.to_json(5) == {"absent": "no power sensor (looked for: ina)"}
    assert bench.ledger.total().absent == "no power sensor (looked for: ina)"


def test_a_meter_that_dies_during_the_work(bench):
    """No part of it is passed for the whole; another job, before, keeps its own."""
    bench.power(5.0, 0, 1, 2, 3, 4)
    bench.ledger.record(0.0, 2.0, {"early": 1})
    for step in range(2, 12):
        bench.ledger.record(step, step + 1, {"late": 1})
    bench.ledger.lost("/dev/ttyUSB0: silent for 8 s")
    assert bench.ledger.close("early").joules == pytest.approx(10.0)
    energy = bench.ledger.close("late")
    assert energy.joules is None
    assert energy.absent == "power was not known for 8.0 s of 10.0: /dev/ttyUSB0: silent for 8 s"


def test_a_meter_that_dies_and_comes_back(bench):
    """The work across its absence has no energy, the next has."""
    bench.power(5.0, 0, 1)
    bench.ledger.record(0.5, 6.0, {"across": 1})
    bench.ledger.lost("silent")
    bench.power(5.0, 6, 7)
    bench.ledger.record(6.0, 7.0, {"after": 1})
    assert "silent" in bench.ledger.close("across").absent
    assert bench.ledger.close("after").joules == pytest.approx(5.0)
    total = bench.ledger.total()
    assert total.value == 10.0 and "5 s in which power was not known left out" in total.source


def test_a_job_that_the_engine_never_touched(bench):
    """Refused, or answered from the cache: nobody's energy."""
    bench.power(5.0, 0, 1)
    assert bench.ledger.close("a").absent == "the engine did no work for it"
    bench.ledger.record(1.0, 1.0, {"a": 1})
    bench.ledger.record(0.0, 1.0, {"a": 0})
    assert bench.ledger.close("a").joules is None


def test_memory_is_bounded_without_samples_and_without_closing(bench):
    """A scheduler that forgets to close, and a meter that never comes."""
    for number in range(10_000):
        bench.ledger.record(number / 10, (number + 1) / 10, {number: 1})
    assert len(bench.ledger._accounts) <= 4096 and len(bench.ledger._steps) <= 31


def test_power_at_rest_is_learnt_from_idle_time_alone(bench):
    """A sample of a long step is no rest, though the step is told of only at its end."""
    for second in range(100):
        bench.power(3.0, second)
    for second in range(100, 150):
        bench.power(8.0, second)
    bench.ledger.record(100.0, 150.0, {"a": 1})
    for second in range(150, 300):
        bench.power(3.5 if second < 160 else 3.0, second)
    energy = bench.ledger.close("a")
    assert energy.idle_w == pytest.approx(3.0)
    assert energy.joules == pytest.approx(400.0, abs=3)


def test_the_ledger_knows_when_there_is_work(bench):
    """Then power is looked at more often."""
    assert not bench.ledger.at_work()
    bench.now = 5.0
    bench.ledger.record(4.0, 5.0, {"a": 1})
    assert bench.ledger.at_work() and bench.ledger.work_began.is_set()
    bench.now = 8.0
    assert not bench.ledger.at_work()


def test_the_object_of_a_reply():
    """Joules of a token count the whole reply's, prompt included."""
    energy = Energy(joules=12.34567, source="ina219 1-0040 (shunt 0.1 ohm)", error=0.0312, idle_w=2.711)
    assert energy.to_json(24) == {
        "joules": 12.35,
        "joules_per_token": 0.5144,
        "source": "ina219 1-0040 (shunt 0.1 ohm)",
        "measured": True,
        "covers": "device",
        "error": 0.031,
        "idle_w": 2.71,
    }
    assert "joules_per_token" not in energy.to_json(0)
    assert set(Energy(joules=1.0).to_json()) == {"joules", "source", "measured", "covers"}
