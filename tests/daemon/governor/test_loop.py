"""The governor at work: what the engine did is put together from the scheduler's totals, and the levers are obeyed."""

from dataclasses import dataclass

import pytest

from edgebit.daemon.config.sections import GovernorConfig
from edgebit.daemon.governor.loop import GovernorLoop
from edgebit.daemon.serving.work import PassFigures, PassTotals


@dataclass
class Reading:
    value: float | None


class Scheduler:
    """Keeps what it is told."""

    def __init__(self):
        self.now = 100.0
        self.made = PassTotals()
        self.levers = []

    def apply(self, levers):
        self.levers.append(levers)

    def totals(self):
        return self.made


def loop_of(scheduler, readings=None, **config):
    readings = {"t_soc": Reading(50.0)} if readings is None else readings
    return GovernorLoop(GovernorConfig(**config), scheduler, lambda: readings, lambda: 4, lambda: scheduler.now)


DECODING = PassFigures(took_s=0.1, decoding=2, drawn=2)
PROMPT = PassFigures(took_s=0.4, prompt_tokens=64, decoding=0)
BOTH = PassFigures(took_s=0.2, prompt_tokens=8, decoding=2, drawn=2)


@pytest.mark.parametrize(
    ("passes", "busy", "tok_s", "streams"),
    [
        ([], 0.0, None, 1),
        ([DECODING] * 5, 0.5, 20.0, 2),
        ([PROMPT], 0.4, None, 1),
        ([DECODING, BOTH, PROMPT], 0.7, 20.0, 2),
        ([PROMPT] * 5, 1.0, None, 1),
    ],
)
def test_what_the_engine_did_since_the_look_before(passes, busy, tok_s, streams):
    """Busy in all passes; the speed is that of passes that only decode, which alone can be compared."""
    scheduler = Scheduler()
    loop = loop_of(scheduler)
    for _ in range(2):  # the second look counts from the first
        for each in passes:
            scheduler.made = scheduler.made.with_pass(each)
        scheduler.now += 1.0
        engine = loop._engine()
    assert (engine.busy, engine.threads, engine.streams) == (pytest.approx(busy), 4, streams)
    assert engine.tok_s == (None if tok_s is None else pytest.approx(tok_s))


def test_levers_are_obeyed_at_each_look():
    """Once a second, and what has happened is given back once."""
    scheduler = Scheduler()
    readings = {"t_soc": Reading(50.0)}
    loop = loop_of(scheduler, readings)
    assert loop.tick() == [] and loop.tick() == []
    assert [levers.admit for levers in scheduler.levers] == [True]
    readings["t_soc"] = Reading(95.0)
    scheduler.now += 1.0
    assert [each.event for each in loop.tick()] == ["hot", "admission_closed"]
    assert scheduler.levers[-1] == loop.levers and not loop.levers.admit and loop.levers.threads == 1
    assert loop.status()["headroom_c"] == -17.0 and loop.metrics()["admit"] is False


@pytest.mark.parametrize("fixed", [False, True])
def test_before_an_engine_is_open_its_threads_are_left_to_it(fixed):
    """What waits for the model is computed before the next look: with all threads, not with those of no engine."""
    scheduler, opened = Scheduler(), [0]
    readings = {"t_soc": Reading(50.0), "undervoltage": Reading(1.0)}
    loop = GovernorLoop(
        GovernorConfig(), scheduler, lambda: readings, lambda: opened[0], lambda: scheduler.now, threads_fixed=fixed
    )
    loop.tick()
    opened[0] = 4
    scheduler.now += 1.0
    loop.tick()
    assert [levers.threads for levers in scheduler.levers] == [0, 4 if fixed else 2]


def test_rest_is_as_configured():
    """How long all must be well until work is taken again."""
    scheduler = Scheduler()
    readings = {"t_soc": Reading(95.0)}
    loop = loop_of(scheduler, readings, rest_s=3.0)
    loop.tick()
    readings["t_soc"] = Reading(50.0)
    told = []
    for second in range(1, 9):
        scheduler.now += 1.0
        told += [(second, each.event) for each in loop.tick()]
    assert told == [(4, "cooled"), (4, "admission_opened")]


def test_off_moves_nothing():
    """No look, and the scheduler is told nothing."""
    scheduler = Scheduler()
    loop = loop_of(scheduler, {"t_soc": Reading(95.0)}, mode="off")
    assert loop.tick() == [] and not scheduler.levers
