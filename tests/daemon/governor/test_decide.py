"""decide(): what the engine may do, as tables and as properties over any readings."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgebit.daemon.governor.governor import decide, headroom_c, steady_c
from edgebit.daemon.governor.heat_model import HeatModel
from edgebit.daemon.governor.latch import Latch
from edgebit.daemon.governor.settings import Readings, Settings, conservative, ladder, share_of_work
from edgebit.daemon.governor.state import State

SPEED = Settings(threads_max=4)
HOLD = Settings(threads_max=4, hold_target=True, leave_hot=True)
# A model that has learnt: 45 C at rest, 95 C at full work, 120 s.
KNOWS = HeatModel(fit=(-12.5, -8.3333, 41.6667), windows=100, spread=(0.0, 1.0))


def seen(now, level=0, **fields):
    """A state at rest for a long time that has seen 50 C a second ago."""
    return State(
        model=KNOWS, looked_at=now - 1, celsius=50.0, celsius_at=now - 1, level=level, **{"moved_at": -1e6, **fields}
    )


def after(state, readings, limits, now, seconds):
    """The levers after so many seconds of the same readings, and the state."""
    levers, state = decide(state, readings, limits, now)
    for second in range(1, seconds + 1):
        levers, state = decide(state, readings, limits, now + second)
    return levers, state


HELD_MOST = "far too hot, 1 of 4 threads, computing 20% of the time"
ONE_LOOK = [
    # settings, level, readings, threads, duty, admit, in_pool, hot, reason
    (SPEED, 0, Readings(celsius=50.0), 4, 1.0, True, True, False, ""),
    (SPEED, 0, Readings(), 4, 1.0, True, True, False, ""),
    (SPEED, 0, Readings(celsius=79.9), 4, 1.0, True, True, False, ""),
    (SPEED, 0, Readings(celsius=80.0), 4, 1.0, True, True, True, "hot"),
    (SPEED, 0, Readings(celsius=60.0, throttled=True), 4, 1.0, True, True, True, "hot"),
    (SPEED, 0, Readings(throttled=True), 4, 1.0, True, True, True, "hot"),
    (SPEED, 0, Readings(celsius=90.0), 1, 1.0, False, False, True, "far too hot, 1 of 4 threads"),
    (SPEED, 0, Readings(celsius=math.nan), 4, 1.0, True, True, False, ""),
    (SPEED, 0, Readings(celsius=50.0, undervoltage=True), 2, 1.0, True, False, False, "undervoltage, 2 of 4 threads"),
    (SPEED, 0, Readings(celsius=50.0, battery=9.0), 4, 1.0, False, False, False, "the battery is almost empty"),
    (SPEED, 0, Readings(celsius=50.0, battery=9.0, charging=True), 4, 1.0, True, True, False, ""),
    (SPEED, 0, Readings(celsius=50.0, battery=9.0, charging=False, mains=True), 4, 1.0, True, True, False, ""),
    (SPEED, 0, Readings(celsius=50.0, battery=25.0), 4, 1.0, True, False, False, ""),
    (SPEED, 0, Readings(celsius=50.0, memory_pressure=21.0), 4, 1.0, False, False, False, "memory is short"),
    (HOLD, 0, Readings(celsius=50.0, busy=1.0), 4, 1.0, True, True, False, ""),
    (HOLD, 0, Readings(celsius=70.0, busy=1.0), 4, 1.0, True, True, False, ""),
    (HOLD, 0, Readings(celsius=72.0, busy=1.0), 3, 1.0, True, True, False, "3 of 4 threads"),
    (HOLD, 0, Readings(celsius=81.0), 2, 1.0, True, False, True, "hot, 2 of 4 threads"),
    (HOLD, 3, Readings(celsius=79.0), 1, 1.0, True, True, False, "1 of 4 threads"),
    (HOLD, 3, Readings(celsius=80.0), 1, 0.9, True, False, True, "hot, 1 of 4 threads, computing 90% of the time"),
    (HOLD, 3, Readings(celsius=40.0), 2, 1.0, True, True, False, "2 of 4 threads"),
    (HOLD, 0, Readings(celsius=91.0), 1, 0.2, False, False, True, HELD_MOST),
]  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "level", "readings", "threads", "duty", "admit", "in_pool", "hot", "reason"), ONE_LOOK
)
def test_one_look(limits, level, readings, threads, duty, admit, in_pool, hot, reason):
    """From a state at rest to the levers, and why."""
    levers, _ = decide(seen(1000.0, level), readings, limits, 1000.0)
    assert (levers.threads, levers.duty) == (threads, duty)
    assert (levers.admit, levers.in_pool, levers.hot) == (admit, in_pool, hot)
    assert levers.reason == reason
    codes = {"far too hot": "hot", "the battery is almost empty": "battery_low", "memory is short": "memory_short"}
    assert levers.closed_by == ("" if admit else codes[reason.partition(",")[0]])


def test_the_sensor_is_lost():
    """For some seconds the last reading holds, then the device is held to half; once it is back, so are the levers."""
    levers, state = after(seen(1000.0), Readings(celsius=60.0), SPEED, 1000.0, 3)
    levers, state = after(state, Readings(), SPEED, 1004.0, 3)
    assert (levers.threads, levers.in_pool) == (4, True)
    levers, state = after(state, Readings(), SPEED, 1008.0, 60)
    assert (levers.threads, levers.admit, levers.in_pool) == (2, True, False)
    assert levers.reason == "the temperature sensor is lost, 2 of 4 threads"
    levers, state = after(state, Readings(celsius=60.0), SPEED, 1069.0, 400)
    assert (levers.threads, levers.in_pool) == (4, True)


def test_a_device_that_never_had_a_sensor_is_not_held_back():
    """There is nothing to go by, which the reason of absent readings says elsewhere."""
    levers, _ = after(State(), Readings(busy=1.0, tok_s=5.0), HOLD, 0.0, 100)
    assert (levers.threads, levers.duty, levers.in_pool, levers.sustainable_tok_s) == (4, 1.0, True, 5.0)


def test_it_comes_back_to_the_pool_later_than_it_cools():
    """Joining has a rest of its own: 120 s well, after the 30 s until it is no longer hot."""
    _, state = decide(seen(0.0), Readings(celsius=85.0), HOLD, 0.0)
    times = {}
    for second in range(1, 400):
        levers, state = decide(state, Readings(celsius=60.0), HOLD, float(second))
        times.setdefault(("hot", levers.hot), second)
        times.setdefault(("pool", levers.in_pool), second)
    assert times["hot", False] == 31
    assert times["pool", True] == 151


def test_a_level_that_was_too_much_rests_twice_as_long():
    """Where up is too hot and down is too cool, the moves up come ever more rarely."""
    state, ups, level = State(level=1, moved_at=0.0), [], 1
    blind = replace(HOLD, threads_max=2, pace=False)
    for second in range(4000):
        celsius = 82.0 if level == 0 else 70.0
        levers, state = decide(state, Readings(celsius=celsius, busy=1.0), blind, float(second))
        if levers.threads == 2 and level == 1:
            ups.append(second)
        level = 2 - levers.threads
    gaps = [later - sooner for sooner, later in pairwise(ups)]
    assert gaps == sorted(gaps) and gaps[0] < 100 and gaps[-1] >= 900


def test_surplus_threads_are_shed_on_a_hot_device_and_come_back():
    """Three threads decode as fast as four, two do not: three stay, until the device has been cool for a while."""
    speeds = {4: 10.0, 3: 9.9, 2: 7.0, 1: 4.0}
    levers, state = decide(seen(0.0), Readings(celsius=82.0), SPEED, 0.0)
    history = []
    for second in range(1, 400):
        readings = Readings(celsius=82.0, busy=1.0, tok_s=speeds[levers.threads])
        levers, state = decide(state, readings, SPEED, float(second))
        history.append(levers.threads)
    assert sorted(set(history)) == [2, 3, 4] and history[-200:] == [3] * 200
    assert levers.sustainable_tok_s == pytest.approx(9.9, abs=0.1)
    levers, _ = after(state, Readings(celsius=60.0), SPEED, 400.0, 331)
    assert levers.threads == 4


@pytest.mark.parametrize(
    "course",
    [
        [(5, Readings(celsius=92.0))],
        [(5, Readings(celsius=82.0, undervoltage=True))],
        [(20, Readings(celsius=82.0)), (5, Readings(celsius=82.0, undervoltage=True))],
        [(45, Readings(celsius=82.0)), (5, Readings(celsius=92.0))],
        [(5, Readings(celsius=82.0)), (20, Readings())],
    ],
    ids=["stop", "undervoltage", "amid the first measurement", "amid the trial", "sensor lost"],
)
def test_surplus_is_measured_from_all_threads(course):
    """A level that protection has set is nobody's yardstick: the device would be kept at it as long as it is hot."""
    speeds = {4: 10.0, 3: 9.9, 2: 7.0, 1: 4.0}
    levers, state = decide(seen(0.0), Readings(celsius=82.0), SPEED, 0.0)
    second = 0
    for seconds, readings in [*course, (600, Readings(celsius=82.0))]:
        for _ in range(seconds):
            second += 1
            levers, state = decide(state, replace(readings, busy=1.0, tok_s=speeds[levers.threads]), SPEED, second)
    assert levers.threads == 3


def test_what_is_published():
    """Degrees to the target, where it would end, the speed that can be kept up."""
    state = seen(1000.0, speeds=((4, 10.0),))
    levers, state = decide(state, Readings(celsius=72.0, busy=1.0, tok_s=10.0), HOLD, 1000.0)
    assert headroom_c(state, HOLD) == 6.0
    assert steady_c(state, HOLD) == pytest.approx(82.5, abs=0.2)  # 3 of 4 threads
    assert levers.sustainable_tok_s == pytest.approx(5.0)  # 2 of 4 end at 70
    assert headroom_c(State(), HOLD) is None and steady_c(State(), HOLD) is None


TEMPERATURES = st.one_of(st.none(), st.floats(20, 110), st.just(math.nan))
READINGS = st.builds(
    Readings,
    celsius=TEMPERATURES,
    clock=st.one_of(st.none(), st.floats(0, 5000)),
    throttled=st.one_of(st.none(), st.booleans()),
    undervoltage=st.one_of(st.none(), st.booleans()),
    battery=st.one_of(st.none(), st.floats(0, 100)),
    charging=st.one_of(st.none(), st.booleans()),
    memory_pressure=st.one_of(st.none(), st.floats(0, 100)),
    busy=st.floats(-1, 2),
    tok_s=st.one_of(st.none(), st.floats(0.01, 100), st.just(math.nan)),
    streams=st.integers(1, 4),
)
LIMITS = st.builds(
    Settings,
    threads_max=st.integers(1, 8),
    hold_target=st.booleans(),
    leave_hot=st.booleans(),
    lower_threads=st.booleans(),
    pace=st.booleans(),
)
COURSE = st.lists(st.tuples(READINGS, st.integers(1, 40)), min_size=1, max_size=10)


def run(limits, course):
    """Every look of a course: (second, levers, state after)."""
    state, now = State(), 0.0
    for readings, seconds in course:
        for _ in range(seconds):
            levers, state = decide(state, readings, limits, now)
            yield now, readings, levers, state
            now += 1.0


@settings(max_examples=40, deadline=None)
@given(LIMITS, COURSE)
def test_moves_keep_their_rests(limits, course):
    """Levers stay within their ranges, and never go up sooner than the rest after the move before."""
    moved_at, before = -math.inf, None
    for now, _, levers, state in run(limits, course):
        assert 1 <= levers.threads <= limits.threads_max and 0 < levers.duty <= 1
        assert levers.sustainable_tok_s is None or levers.sustainable_tok_s > 0
        work = levers.threads * levers.duty
        if before is not None and work > before and limits.hold_target:
            assert now - moved_at >= limits.rest_s
        if before is not None and work != before:
            moved_at = now
        before = work
        assert state.level < len(ladder(limits))


@settings(max_examples=40, deadline=None)
@given(LIMITS, COURSE, READINGS, st.floats(20, 110), st.floats(0, 40))
def test_hotter_never_gives_more(limits, course, readings, celsius, warmer):
    """From one and the same state, a higher temperature opens nothing that a lower one closes."""
    *_, (now, _, _, state) = run(limits, course)
    cool, _ = decide(state, replace(readings, celsius=celsius), limits, now + 1)
    warm, _ = decide(state, replace(readings, celsius=celsius + warmer), limits, now + 1)
    if limits.hold_target:
        assert warm.threads * warm.duty <= cool.threads * cool.duty
    assert cool.admit >= warm.admit and cool.in_pool >= warm.in_pool and cool.hot <= warm.hot


# Eleven degrees in each 15 s, work or not: a model that foresees far too much at rest, until it has learnt better.
FALSE_ALARM = [(Readings(celsius=20.0 + 11 * place, busy=float(place % 2)), 15) for place in range(9)]


@settings(max_examples=25, deadline=None)
@given(LIMITS, COURSE)
@example(HOLD, FALSE_ALARM)
def test_it_always_recovers(limits, course):
    """Whatever came before: on a device that is cool and well all levers are back within the longest rests.

    It is looked at each second, as in the daemon: from looks that are further apart than MAX_GAP_S no model learns.
    """
    *_, (now, _, _, state) = run(limits, course)
    well = Readings(celsius=40.0, throttled=False, undervoltage=False, busy=0.0)
    for second in range(1, 60 * 60 * 8):
        levers, state = decide(state, well, limits, now + second)
        if state.level == 0 and levers.in_pool and not levers.hot:
            break
    assert (levers.threads, levers.duty) == (limits.threads_max, 1.0)
    assert levers.admit and levers.in_pool and not levers.hot


@settings(max_examples=40, deadline=None)
@given(LIMITS, COURSE, st.lists(READINGS, min_size=1, max_size=30))
def test_a_lost_sensor_never_gives_more_than_the_conservative_level(limits, course, blind):
    """Once it is lost, whatever the other readings say."""
    *_, (now, _, _, state) = run(limits, [*course, (Readings(celsius=50.0), 1)])
    levels = ladder(limits)
    most = share_of_work(levels, conservative(levels))
    now += limits.sensor_lost_s
    for readings in blind:
        now += 1
        levers, state = decide(state, replace(readings, celsius=None), limits, now)
        assert levers.threads * levers.duty / levels[0].threads <= most + 1e-9 and not levers.in_pool


@pytest.mark.parametrize(
    ("events", "held"),
    [
        ("h", True),
        ("hw", True),
        ("h" + "w" * 31, False),
        ("h" + "w" * 30, True),
        ("h" + "w" * 20 + "-" + "w" * 20, True),
        ("-w-", False),
    ],
)
def test_latch(events, held):
    """It holds at once, and opens after 30 s on end in which all is well."""
    latch = Latch()
    for second, event in enumerate(events):
        latch = latch.after(hold=event == "h", well=event == "w", now=float(second), rest_s=30.0)
    assert latch.held is held


@pytest.mark.parametrize(
    ("limits", "places", "half"),
    [
        (Settings(threads_max=4), [(4, 1.0), (3, 1.0), (2, 1.0), (1, 1.0)], 2),
        (Settings(threads_max=1), [(1, 1.0)], 0),
        (Settings(threads_max=2, hold_target=True, lower_threads=False, pace=False), [(2, 1.0)], 0),
        (Settings(threads_max=0), [(1, 1.0)], 0),
    ],
)
def test_ladder(limits, places, half):
    """From the most heat to the least, with the place where the sensor is lost."""
    assert [(level.threads, level.duty) for level in ladder(limits)] == places
    assert conservative(ladder(limits)) == half
    assert len(ladder(replace(HOLD, threads_max=3))) == 3 + 8
