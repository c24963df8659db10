"""In the pool or out of it: a table of what happens and what follows."""

import pytest

from edgebit.daemon.config.sections import PoolConfig
from edgebit.daemon.connection.pool_membership import Fitness, Membership, decide

CONFIG = PoolConfig(names=("lab",), leave_queue=4, rejoin_queue=1, rejoin_s=5.0)
WELL = {"connected": True, "state": "ready", "held_back": None, "waiting": 0}


def course(*steps):
    """What becomes of a device to which these things happen, each (seconds, what differs from all being well)."""
    membership, places = Membership(), []
    for now, change in steps:
        membership = decide(membership, Fitness(**{**WELL, **change}), CONFIG, now)
        places.append(membership.is_in)
    return places, membership


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"connected": False}, "not connected"),
        ({"state": "fault"}, "says fault"),
        ({"state": "draining"}, "says draining"),
        ({"held_back": "82 °C"}, "82 °C"),
        ({"held_back": ""}, "held back"),
        ({"waiting": 4}, "too many jobs wait: 4"),
    ],
)
def test_out_at_once_and_back_after_a_while(change, reason):
    """One bad look ends the membership; only rejoin_s of good ones bring it back, counted from the last bad one."""
    places, _ = course((0, {}), (5, {}), (6, change), (7, {}), (9, change), (10, {}), (14.9, {}), (15, {}))
    assert places == [False, True, False, False, False, False, False, True]

    _, membership = course((0, {}), (5, {}), (6, change), (7, {}))
    assert reason in membership.reason


def test_a_hot_device_stays_unless_the_governor_objects():
    """With the firmware at the levers it is as fast as a cool one (docs/decisions/governor.md)."""
    assert course((0, {}), (5, {"state": "hot"}), (60, {"state": "hot"}))[0] == [False, True, True]


@pytest.mark.parametrize("waiting", [2, 3])
def test_between_the_bounds_all_stays_as_it_was(waiting):
    """A queue that is neither long nor short moves nobody, in or out."""
    busy = {"state": "busy", "waiting": waiting}
    assert course((0, {}), (5, {}), (6, busy), (60, busy))[0] == [False, True, True, True]
    assert course((0, busy), (60, busy), (61, {}), (66, {}))[0] == [False, False, False, True]
