"""What is kept for a broker that is away: answers first, and what has no room is told, not lost."""

from collections import Counter

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgebit.daemon.connection.sender import GIVING_WAY, Sender
from edgebit.daemon.contract.frames import Outgoing
from edgebit.daemon.contract.topics import DeviceTopics

QUEUE_MAX = 2 * GIVING_WAY


class Away:
    """A sender whose client has no connection."""

    def __init__(self):
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.max_queued_messages_set(QUEUE_MAX)
        self.counters = Counter()
        self.sender = Sender(client, False, DeviceTopics("edgebit", "pi"), self.counters, QUEUE_MAX)
        self.no_room = []

    def say(self, name, **named):
        message = Outgoing(topic=name, payload=b"", no_room=lambda: self.no_room.append(name), **named)
        return self.sender.publish(message)


@pytest.fixture
def away():
    return Away()


def test_what_has_no_room_is_told(away):
    """And what has been taken by the broker makes room."""
    kept = [away.say(f"a{n}") for n in range(QUEUE_MAX)]
    assert away.sender.room == 0 and away.say("late") is None
    assert away.no_room == ["late"] and away.counters == {"published": QUEUE_MAX, "dropped": 1}
    away.sender.confirmed(kept[0].mid)
    assert away.sender.room == 1


def test_events_of_a_long_outage_leave_the_answers_their_room(away):
    said = [away.say("event", gives_way=True) for _ in range(10 * QUEUE_MAX)]
    kept = QUEUE_MAX // GIVING_WAY
    assert sum(each is not None for each in said) == kept
    assert all(away.say(f"a{n}") for n in range(QUEUE_MAX - kept)) and not away.no_room


def test_what_the_broker_never_takes_is_not_said_again(away):
    away.sender.packet_max = 20
    assert away.say("a" * 30) is None
    assert away.no_room == [] and away.counters == {"dropped_too_large": 1}
