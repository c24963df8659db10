"""The pure part of a roll-out: which waves there are, and what is next."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.errors import ConfigError
from edgebit.fleet.rollout import GOOD, Decision, Limits, Progress, decide, parse_batch, plan_waves


def names(count):
    return [f"d{number}" for number in range(count)]


@pytest.mark.parametrize(("text", "fleet", "size"), [("5", 20, 5), ("25%", 20, 5), ("1%", 20, 1), ("100%", 7, 7)])
def test_a_batch_is_a_number_or_a_share(text, fleet, size):
    """A share is of all devices chosen, and never none of them."""
    assert parse_batch(text, fleet) == size


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-3", "half", "", "%", "2.5", "٣"])
def test_a_batch_that_is_none_is_refused(text):
    """Naming the option."""
    with pytest.raises(ConfigError, match="--batch"):
        parse_batch(text, 20)


@pytest.mark.parametrize(
    ("canary", "batch", "waves"),
    [
        (0, 9, [("1 of 1", 7)]),
        (1, 3, [("canary", 1), ("1 of 2", 3), ("2 of 2", 3)]),
        (2, 2, [("canary", 2), ("1 of 3", 2), ("2 of 3", 2), ("3 of 3", 1)]),
        (7, 2, [("canary", 7)]),
        (9, 2, [("canary", 7)]),
    ],
)
def test_waves(canary, batch, waves):
    """First the canaries, then batches; each device in one wave, in order."""
    planned = plan_waves(names(7), canary, batch)

    assert [(wave.name, len(wave.devices)) for wave in planned] == waves
    assert [name for wave in planned for name in wave.devices] == names(7)


def act(progress, *, canary=1, batch=2, **limits):
    return decide(plan_waves(names(5), canary, batch), progress, Limits(**limits))


def test_canaries_go_alone():
    """Nobody else begins while a canary is under way, however many could."""
    assert act(Progress()) == Decision("start", ("d0",))
    assert act(Progress(running={"d0"})) == Decision("wait")
    assert act(Progress(results={"d0": "updated"})) == Decision("start", ("d1", "d2"))


def test_a_failed_canary_ends_it():
    """Whatever --max-failures says."""
    decision = act(Progress(results={"d0": "failed"}), max_failures=4)

    assert decision == Decision("stop", why="canary d0 failed")


def test_the_soak_comes_between():
    """Once, after the canaries, and only where somebody is to follow."""
    done = {"d0": "updated"}
    assert act(Progress(results=done), soak_s=60) == Decision("soak")
    assert act(Progress(results=done, soaked=True), soak_s=60).act == "start"
    assert act(Progress(results=dict.fromkeys(names(5), "updated")), soak_s=60) == Decision("finish")


def test_a_wave_waits_for_the_one_before():
    """Also where there is room for more."""
    progress = Progress(results={"d0": "updated", "d1": "updated"}, running={"d2"})
    assert act(progress, parallel=8) == Decision("wait")


def test_more_failures_than_allowed_end_it_once_all_under_way_have_ended():
    """Up to the limit it goes on."""
    failed = {"d0": "updated", "d1": "failed"}
    assert act(Progress(results=failed, running={"d2"}), max_failures=1, batch=4).act == "start"
    assert act(Progress(results=failed, running={"d2"})) == Decision("wait")
    assert act(Progress(results=failed)) == Decision("stop", why="1 device failed, and --max-failures is 0")


def test_a_device_out_of_reach_is_tried_again_last():
    """After the others of its wave; it fails when its tries are used up."""
    results, tries = {"d0": "updated", "d1": "unreachable"}, {"d0": 1, "d1": 1}
    assert act(Progress(results=results, tries=tries), parallel=1).devices == ("d2",)
    results["d2"] = "updated"
    assert act(Progress(results=results, tries=tries)).devices == ("d1",)
    tries["d1"] = 2
    assert act(Progress(results=results, tries=tries)).act == "stop"
    assert act(Progress(results=results, tries=tries), max_failures=1).devices == ("d3", "d4")


@given(
    count=st.integers(1, 24),
    canary=st.integers(0, 4),
    batch=st.integers(1, 24),
    parallel=st.integers(1, 6),
    max_failures=st.integers(0, 5),
    retries=st.integers(0, 2),
    soak=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_every_roll_out_keeps_its_limits_and_ends(count, canary, batch, parallel, max_failures, retries, soak, seed):
    """Whatever devices do: never more at once, no wave before the one before, nothing new after the limit."""
    chance = random.Random(seed)
    waves = plan_waves(names(count), canary, batch)
    limits = Limits(parallel=parallel, max_failures=max_failures, soak_s=float(soak), retries=retries)
    results, tries, running, soaked = {}, {}, [], False
    for _ in range(20 * count + 20):
        decision = decide(waves, Progress(results=results, tries=tries, running=running, soaked=soaked), limits)
        final = {name for name, result in results.items() if result != "unreachable" or tries[name] > retries}
        bad = [name for name in final - set(running) if results[name] not in GOOD]
        if decision.act == "start":
            assert len(bad) <= max_failures
            for name in decision.devices:
                wave = next(wave for wave in waves if name in wave.devices)
                before = {other for earlier in waves[: waves.index(wave)] for other in earlier.devices}
                assert before <= final and not before & set(running)
                assert name not in running and results.get(name) not in GOOD
                running.append(name)
                tries[name] = tries.get(name, 0) + 1
            assert len(running) <= parallel
        elif decision.act == "wait":
            assert running
            name = running.pop(chance.randrange(len(running)))
            results[name] = chance.choice(["updated", "updated", "updated", "present", "failed", "unreachable"])
        elif decision.act == "soak":
            soaked = True
        else:
            break
    assert decision.act in ("stop", "finish") and not running
    if decision.act == "finish":
        assert final == set(names(count)) and len(bad) <= max_failures
    else:
        assert len(bad) > max_failures or set(bad) & set(waves[0].devices)
