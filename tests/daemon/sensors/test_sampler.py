"""The sampler: each sensor in its time, true ages, and no fault of one that reaches the others."""

import random
import threading
import time

import pytest

from edgebit.daemon.sensors.energy_ledger import EnergyLedger
from edgebit.daemon.sensors.power import Power, PowerSample
from edgebit.daemon.sensors.reading import NothingNow, Reading, Unreadable
from edgebit.daemon.sensors.sampler import Sampler


class Counter:
    """A sensor that counts how often it is read."""

    def __init__(self, name, every_s):
        self.name, self.every_s, self.reads = name, every_s, 0
        self.fault = None

    def read(self):
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        yield Reading(self.name, "1", float(self.reads), "counter")


class Source:
    kind, every_s = "fake", 0.1

    def __init__(self, clock):
        self.clock, self.watts = clock, 5.0

    def read(self):
        if self.watts is None:
            raise Unreadable("unplugged")
        return PowerSample(at=self.clock(), watts=self.watts, source="fake", error=0.0)

    def close(self):
        self.closed = True


class Bench:
    def __init__(self):
        self.now = 0.0
        self.fast, self.slow = Counter("fast", 1.0), Counter("slow", 10.0)
        self.source = Source(self.clock)
        power = Power([self.source], clock=self.clock)
        self.sampler = Sampler(
            [self.fast, self.slow],
            power,
            EnergyLedger(3.0, clock=self.clock),
            clock=self.clock,
            chance=random.Random(1),
        )

    def clock(self):
        return self.now

    def values(self):
        return {name: reading.value for name, reading in self.sampler.readings().items()}


@pytest.fixture
def bench():
    return Bench()


def test_each_sensor_is_read_as_often_as_it_is_worth(bench):
    """The disk's room is not asked for every second."""
    for second in range(21):
        bench.now = float(second)
        assert bench.sampler.sample() == pytest.approx(1.0)
    assert (bench.fast.reads, bench.slow.reads) == (21, 3)


def test_power_is_read_more_often_during_work(bench):
    """And only power, at uneven times: passes of 0.2 s must not each be seen in the same moment."""
    bench.sampler.sample()
    bench.now = 0.5
    bench.sampler.energy.record(0.2, 0.5, {"a": 1})
    waits = [bench.sampler.sample() for _ in range(200)]
    assert 0.1 <= min(waits) < 0.12 and 0.28 < max(waits) <= 0.3
    assert bench.fast.reads == 1
    bench.now = 5.0
    assert bench.sampler.sample() == pytest.approx(1.0)


def test_ages_are_those_of_the_asking(bench):
    """A sampler that hangs makes readings old, and in the end absent."""
    bench.now = 1.0
    bench.sampler.sample()
    bench.now = 3.5
    readings = bench.sampler.readings()
    assert readings["fast"].age_s == 2.5 and readings["power"].age_s == 2.5 and readings["energy_total"].age_s == 2.5
    bench.now = 17.0
    readings = bench.sampler.readings()
    assert readings["fast"].value is None and readings["fast"].absent == "its last reading is 16 s old"
    assert readings["slow"].value == 1.0  # read every ten seconds, so good for thirty
    bench.now = 32.0
    assert bench.values()["slow"] is None


def test_power_and_energy(bench):
    """W now, J since the start; while the source is away the one is absent and the other stands still."""
    for bench.now in (0.0, 1.0, 2.0):
        bench.sampler.sample()
    assert (bench.values()["power"], bench.values()["energy_total"]) == (5.0, 10.0)
    bench.source.watts = None
    bench.now = 6.0
    bench.sampler.sample()
    readings = bench.sampler.readings()
    assert readings["power"].absent == "unplugged" and readings["energy_total"].value == 10.0
    assert readings["energy_total"].age_s == 4.0


def test_a_fault_of_ours_in_one_sensor_leaves_the_others(bench, caplog):
    """Its names stay, absent; the log has the traceback."""
    bench.sampler.sample()
    bench.fast.fault = RuntimeError("a bug")
    bench.now = 20.0
    bench.sampler.sample()
    readings = bench.sampler.readings()
    assert readings["fast"].value is None and "a fault of ours" in readings["fast"].absent
    assert readings["slow"].value == 2.0 and "a bug" in caplog.text


@pytest.mark.parametrize(("why", "is_lost"), [(Unreadable("unplugged"), True), (NothingNow("it rests"), False)])
def test_power_that_rests_is_not_lost(bench, why, is_lost):
    """Absent with its reason either way, and never 0."""
    bench.sampler.sample()
    bench.source.read = lambda: (_ for _ in ()).throw(why)
    bench.now = 10.0
    bench.sampler.sample()
    power = bench.sampler.readings()["power"]
    assert (power.value, power.absent, power.is_lost) == (None, str(why), is_lost)
    assert "is_lost" not in power.to_json()


def test_the_thread_wakes_for_work_and_ends_when_told():
    """Work that begins is looked at at once, not when the second is over."""
    bench = Bench()
    bench.clock = time.monotonic
    source = Source(time.monotonic)
    seen, read = threading.Semaphore(0), source.read

    def watched():
        seen.release()
        return read()

    source.read = watched
    sampler = Sampler([], Power([source]), EnergyLedger(3.0), interval_s=1000.0)
    thread = threading.Thread(target=sampler.run)
    thread.start()
    assert seen.acquire(timeout=60)
    now = time.monotonic()
    sampler.energy.record(now - 0.1, now, {"a": 1})
    assert seen.acquire(timeout=60) and seen.acquire(timeout=60)
    sampler.stop()
    thread.join(60)
    assert not thread.is_alive() and source.closed
