"""Frames that come in any order, twice, or not at all."""

import random

import pytest

from edgebit.mqtt_client.answers import Assembler

FRAMES = [{"id": "i", "seq": n, "t": "delta", "d": f"{n},"} for n in range(6)]
LAST = {"id": "i", "seq": 6, "t": "done", "done": True}


def test_frames_in_order_are_shown_at_once():
    """Nothing is held back that can be shown."""
    assembler = Assembler()
    assert [assembler.push(frame) for frame in FRAMES] == ["0,", "1,", "2,", "3,", "4,", "5,"]
    assert not assembler.complete
    assembler.push(LAST)
    assert assembler.complete and assembler.lost == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_order_and_repetition_gives_the_same_text(seed):
    """QoS 1 sends again after a reconnect; the last frame may even come first."""
    frames = [*FRAMES, LAST, *FRAMES]
    random.Random(seed).shuffle(frames)
    assembler = Assembler()
    shown = "".join(assembler.push(frame) for frame in frames)
    assert shown == assembler.text == "0,1,2,3,4,5,"
    assert assembler.complete and assembler.lost == 0


def test_a_loss_is_seen():
    """The last frame's number says how many there were."""
    assembler = Assembler()
    for frame in [*FRAMES[:2], *FRAMES[4:], LAST]:
        assembler.push(frame)
    assert not assembler.complete and assembler.lost == 2 and assembler.text == "0,1,"


def test_frames_that_are_none():
    """A broker lets anybody publish anything."""
    assembler = Assembler()
    for frame in ({}, {"seq": "0", "d": "x"}, {"seq": -1, "d": "x"}, {"seq": False, "d": "x"}, {"d": "x"}):
        assert assembler.push(frame) == ""
    assert assembler.text == ""
