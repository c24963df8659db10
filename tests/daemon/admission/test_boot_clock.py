"""How long ago something was, whatever was done to the clocks."""

import pytest

from edgebit.daemon.admission.boot_clock import Instant, boot_clock, carried_over, elapsed_s

YEAR = 365 * 86_400.0
THEN = Instant("boot-1", 1000.0, 1.7e9)


@pytest.mark.parametrize(
    ("now", "passed_s"),
    [
        (Instant("boot-1", 1060.0, 1.7e9 + 60), 60.0),
        (Instant("boot-1", 1060.0, 1.7e9 + 10 * YEAR), 60.0),  # the wall clock is set forwards while it runs
        (Instant("boot-1", 1060.0, 1.7e9 - 10 * YEAR), 60.0),  # and backwards
        (Instant("boot-1", 999.0, 1.7e9), 0.0),  # no clock of the kernel does that
        (Instant("boot-2", 5.0, 1.7e9 + 90), 90.0),  # a reboot: the wall clock counts
        (Instant("boot-2", 5.0, 1.7e9 + 10 * YEAR), 10 * YEAR),  # a wrong one ends what waits early
        (Instant("boot-2", 5.0, 1.7e9 - 10 * YEAR), 0.0),  # or begins its time anew
        (Instant("", 5.0, 1.7e9 + 90), 90.0),  # a machine that does not name its boots
    ],
)
def test_elapsed(now, passed_s):
    assert elapsed_s(THEN, now) == passed_s


@pytest.mark.parametrize("wall_s", [1.7e9 + 90, 1.7e9 + 10 * YEAR, 1.7e9 - 10 * YEAR])
def test_the_wall_clock_is_asked_once(wall_s):
    """After a reboot what had passed is taken over; from then on nobody who sets the clock changes it."""
    carried = carried_over(THEN, Instant("boot-2", 5.0, wall_s))
    before = elapsed_s(THEN, Instant("boot-2", 5.0, wall_s))
    for later_wall_s in (0.0, wall_s, 4e9):
        assert elapsed_s(carried, Instant("boot-2", 65.0, later_wall_s)) == before + 60.0


def test_the_machine_has_such_a_clock():
    clock = boot_clock()
    first, second = clock(), clock()
    assert first.boot == second.boot and first.up_s <= second.up_s
