"""When another client is taken to connect under our id, and for how long that is said."""

import pytest

from edgebit.daemon.connection.rivalry import STEADY_S, TAKEN_OVER, Rivalry

LOST = "The connection was lost."


@pytest.mark.parametrize(
    ("ends", "seen"),
    [
        ([(0.5, LOST)] * 2, [False, False]),
        ([(0.5, LOST)] * 3, [False, False, True]),
        ([(0.5, LOST), (0, "ConnectionRefusedError"), (2, LOST), (9, LOST)], [False, False, False, True]),
        ([(0.5, LOST), (0.5, LOST), (11, LOST), (0.5, LOST)], [False] * 4),
        ([(0.5, LOST)] * 3 + [(45, LOST), (59, LOST)], [False, False, True, True, True]),  # the other one waits too
        ([(0.5, LOST)] * 3 + [(STEADY_S, LOST), (0.5, LOST)], [False, False, True, False, False]),
        ([(4000, TAKEN_OVER)], [True]),
        ([(0, LOST)] * 9, [False] * 9),
    ],
)
def test_quick_losses_in_a_row(ends, seen):
    """Three, whatever failed in between without being ready; a connection that holds ends the row."""
    rivalry = Rivalry("edgebit-pi")
    assert [rivalry.ended(held_s, reason, refused=False) for held_s, reason in ends] == seen


def test_a_reason_of_the_broker_is_no_rival():
    """It is waited for long, and said, for what it is."""
    rivalry = Rivalry("edgebit-pi")
    assert not any(rivalry.ended(0.5, "Not authorized", refused=True) for _ in range(9))


def test_what_is_said_and_until_when():
    """Where the broker has said it, for certain; else as what it may be. Until a connection has held for long."""
    told, counted = Rivalry("edgebit-pi"), Rivalry("edgebit-pi")
    assert told.words(0) is None
    told.ended(5, TAKEN_OVER, refused=True)
    for _ in range(3):
        counted.ended(5, LOST, refused=False)
    assert told.words(0).startswith("another client connects as edgebit-pi: two devices with one name?")
    assert "perhaps another client connects as edgebit-pi" in counted.words(STEADY_S - 1)
    assert "[device] name" in told.words(1) and "[device] name" in counted.words(1)
    assert told.words(STEADY_S) is None and counted.words(STEADY_S) is None
