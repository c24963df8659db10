"""The error that is stated of energy, against simulated devices whose true energy is known.

The sampler itself decides when to look, the ledger what each job had; the meter is as far off as it says it may be.
"""

import random

import pytest

from edgebit.daemon.sensors.energy_ledger import EnergyLedger
from edgebit.daemon.sensors.power import Power, PowerSample
from edgebit.daemon.sensors.sampler import Sampler

STEP_S = 0.01  # of a course of power
IDLE_S = 15.0  # before the work
METER = 0.02


def noise(chance, steps):
    """A supply whose load changes much faster than anybody looks."""
    return [max(0.5, chance.gauss(5, 1.2)) for _ in range(steps)]


def switching(chance, steps):
    """Between two levels, at any time."""
    watts, course = 3.0, []
    for _ in range(steps):
        watts = 12.0 - watts if chance.random() < 0.03 else watts
        course.append(watts)
    return course


def in_step(chance, steps):
    """An engine whose passes take exactly as long as the time between two samples is meant to be."""
    phase = chance.randrange(20)
    return [9.0 if (step + phase) % 20 < 7 else 4.0 for step in range(steps)]


def one_jump(chance, steps):
    """Idle, then work."""
    begin = int(IDLE_S / STEP_S) + chance.randrange(-50, 50)
    return [3.0 if step < begin else 9.0 for step in range(steps)]


class Device:
    """A course of power, a meter that is off by a factor, and a clock."""

    kind, every_s = "fake", 0.1

    def __init__(self, course, off, chance):
        self.now, self.course, self.off = 0.0, course, off
        power = Power([self], clock=self.clock)
        self.ledger = EnergyLedger(3.0, clock=self.clock)
        self.sampler = Sampler([], power, self.ledger, clock=self.clock, chance=chance)
        self.next_sample = 0.0

    def clock(self):
        return self.now

    def read(self):
        watts = self.course[min(int(self.now / STEP_S), len(self.course) - 1)] * self.off
        return PowerSample(at=self.now, watts=watts, source="fake", error=METER)

    def close(self):
        pass

    def work(self, passes):
        """Passes of the engine (begin, end, shares), and the samples that fall between their ends."""
        for begin, end, shares in passes:
            while self.next_sample <= end:
                self.now = self.next_sample
                self.next_sample = self.now + self.sampler.sample()
            self.now = end
            is_waiting_long = not self.ledger.at_work()
            self.ledger.record(begin, end, shares)
            if is_waiting_long:  # work wakes the sampler
                self.next_sample = min(self.next_sample, end + self.sampler.sample())

    def truth(self, begin, end):
        return STEP_S * sum(self.course[round(begin / STEP_S) : round(end / STEP_S)])


def seconds(*figures):
    return [round(figure, 2) for figure in figures]


@pytest.mark.parametrize(("work_s", "error_max"), [(2.0, 1.0), (40.0, 0.13)])
@pytest.mark.parametrize("kind", [noise, switching, in_step, one_jump])
def test_the_truth_lies_within_the_stated_error(kind, work_s, error_max):
    """In 95 of 100 cases, as two standard deviations promise, though the meter is off by all it may be.

    Long replies get a small error, however much power swings: that it does not grow with each sample is the point.
    """
    cases, within = 60, 0
    for seed in range(cases):
        chance = random.Random(seed)
        course = kind(chance, int((IDLE_S + work_s + 1) / STEP_S))
        device = Device(course, 1 + chance.choice([-1, 1]) * METER, chance)
        passes = [(*seconds(IDLE_S + at / 10, IDLE_S + (at + 1) / 10), {"a": 1}) for at in range(round(work_s * 10))]
        device.work(passes)
        energy = device.ledger.close("a")
        truth = device.truth(IDLE_S, IDLE_S + work_s)
        within += abs(energy.joules - truth) <= energy.error * energy.joules
        assert energy.error <= error_max, seed
    assert within >= 0.95 * cases


@pytest.mark.parametrize("seed", range(5))
def test_jobs_that_share_passes_get_all_of_it_together(seed):
    """Each what its tokens make of a pass; in all what was drawn, within the error."""
    chance = random.Random(seed)
    device = Device(switching(chance, int((IDLE_S + 31) / STEP_S)), 1.0, chance)
    alive, passes, at = {"a": 1.0, "b": 3.0}, [], IDLE_S
    for number in range(200):
        if number == 120:
            alive = {"b": 1.0, "c": 1.0}
        begin, at = seconds(at, at + chance.uniform(0.05, 0.2))
        passes.append((begin, at, dict(alive)))
    device.work(passes)
    each = [device.ledger.close(key) for key in "abc"]
    got, truth = sum(energy.joules for energy in each), device.truth(IDLE_S, at)
    assert abs(got - truth) <= sum(energy.error * energy.joules for energy in each)
    assert each[1].joules > each[0].joules
