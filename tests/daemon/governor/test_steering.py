"""The governor in its place: from the daemon's readings to levers, and what is told of it."""

from dataclasses import dataclass

import pytest

from edgebit.daemon.config.sections import GovernorConfig
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.governor.steering import Engine, Happening, Steering


@dataclass
class Reading:
    value: float | None


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


IDLE = Engine(threads=4, busy=0.0)


def readings(**values):
    return {name: Reading(value) for name, value in values.items()}


def steered(looks, config=None, engine=IDLE):
    """The steering after looks of (seconds, readings), and the names of what has happened, with the second."""
    clock = Clock()
    steering = Steering(config or GovernorConfig(), clock)
    told: list[tuple[float, Happening]] = []
    for seconds, values in looks:
        for _ in range(seconds):
            if steering.due():
                told += [(clock.now - 100, happening) for happening in steering.look(readings(**values), engine)]
            clock.now += 1
    return steering, told


COURSES = [
    ([(5, {"t_soc": 50.0})], []),
    ([(5, {"t_soc": None}), (5, {})], []),
    (
        [(5, {"t_soc": 50.0}), (5, {"t_soc": 81.0}), (40, {"t_soc": 60.0})],
        [(5, "hot"), (40, "cooled")],
    ),
    (
        [(2, {"t_soc": 91.0}), (40, {"t_soc": 60.0})],
        [(0, "hot"), (0, "admission_closed"), (32, "cooled"), (32, "admission_opened")],
    ),
    ([(3, {"t_soc": 60.0, "throttled": 1.0}), (3, {"t_soc": 60.0, "throttled": 0.0})], [(0, "throttled"), (0, "hot")]),
    ([(3, {"undervoltage": 1.0}), (3, {"undervoltage": 0.0}), (3, {"undervoltage": 1.0})], [(0, "undervoltage")]),
    ([(3, {"t_soc": 60.0}), (20, {"t_soc": None})], [(7, "sensor_lost")]),
    (
        [(1, {"psi_memory_full": 50.0}), (40, {"psi_memory_full": 0.0})],
        [(0, "admission_closed"), (31, "admission_opened")],
    ),
    (
        [(1, {"battery": 5.0, "charging": 0.0}), (40, {"battery": 5.0, "charging": 1.0})],
        [(0, "admission_closed"), (31, "admission_opened")],
    ),
]


@pytest.mark.parametrize(("looks", "events"), COURSES)
def test_what_happens_is_told_once(looks, events):
    """Each fact at the second at which it becomes true."""
    _, told = steered(looks)
    assert [(second, happening.event) for second, happening in told] == events


def test_facts_say_what_it_is_about():
    """Temperature and limit with a unit, and the reason in words."""
    _, told = steered([(1, {"t_soc": 85.0, "throttled": 1.0})])
    facts = {happening.event: happening.facts for _, happening in told}
    assert facts["hot"] == {"value": 85.0, "limit": 78.0, "unit": "C", "reason": "hot"}
    assert facts["throttled"]["value"] == 85.0 and "firmware" in facts["throttled"]["message"]


def test_it_looks_once_a_second():
    """However often it is asked."""
    clock = Clock()
    steering = Steering(GovernorConfig(), clock)
    assert steering.due()
    steering.look(readings(t_soc=50.0), IDLE)
    for tenth in range(1, 10):
        clock.now = 100 + tenth / 10
        assert not steering.due()
    clock.now = 101.0
    assert steering.due()


def test_off_is_off():
    """No look is due, the levers stand at all, and nothing is claimed."""
    steering = Steering(GovernorConfig(mode="off"), Clock())
    assert not steering.due() and steering.levers == Levers()
    assert steering.metrics()["mode"] == "off" and steering.status() == {"headroom_c": None, "held_back": None}


def test_the_configuration_reaches_the_decision():
    """A target of one's own, held by the levers, and a battery limit."""
    config = GovernorConfig(mode="temperature", target_c=60.0, stop_c=70.0, battery_pool=50.0)
    steering, _ = steered([(30, {"t_soc": 65.0, "battery": 45.0})], config, Engine(threads=4, busy=1.0))
    assert steering.levers.threads < 4 and steering.levers.hot and not steering.levers.in_pool
    assert steering.status() == {"headroom_c": -5.0, "held_back": steering.levers.reason}


def test_metrics_say_what_is_known_and_done():
    """The levers, and of the model only what it has learnt."""
    engine = Engine(threads=4, busy=1.0, tok_s=5.0)
    steering, _ = steered([(3, {"t_soc": 70.0, "clock": 2400.0})], engine=engine)
    assert steering.metrics() == {
        "mode": "speed",
        "threads": 4,
        "duty": 1.0,
        "admit": True,
        "in_pool": True,
        "headroom_c": 8.0,
        "t_ss": None,
        "tau_s": None,
        "sustainable_tok_s": 5.0,
        "reason": "",
    }


def test_fixed_threads_leave_pauses():
    """An engine that cannot compute with fewer is held back by pauses where a target is held, and by nothing else."""
    fixed = Engine(threads=4, threads_fixed=True, busy=1.0)
    target = GovernorConfig(mode="temperature", target_c=60.0, stop_c=95.0)
    steering, _ = steered([(60, {"t_soc": 85.0})], target, fixed)
    assert steering.levers.threads == 4 and steering.levers.duty < 1
    assert "threads" not in steering.levers.reason and "of the time" in steering.levers.reason
    steering, told = steered([(60, {"t_soc": 85.0, "undervoltage": 1.0})], GovernorConfig(), fixed)
    assert (steering.levers.threads, steering.levers.duty, steering.levers.admit) == (4, 1.0, True)
    assert [each.facts["message"] for _, each in told if each.event == "undervoltage"] == [
        "the power supply is too weak"
    ]
