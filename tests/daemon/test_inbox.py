"""Between network thread and main thread: in order, bounded, and never a thread that waits for ever."""

import threading

import pytest

from edgebit.daemon.connection.events import Disconnected
from edgebit.daemon.contract.messages import Incoming
from edgebit.daemon.inbox import REQUESTS_MAX, FromInside, Inbox


def request(n):
    return Incoming(topic=f"t{n}", payload=b"", received=0.0)


@pytest.fixture
def stopping():
    return threading.Event()


@pytest.fixture
def inbox(stopping):
    return Inbox(stopping)


def test_all_that_has_come_in_order(inbox):
    news = Disconnected("gone", True)
    inbox.deliver(request(1))
    inbox.wake()
    inbox.deliver(news)
    inbox.deliver_inside(request(2))
    assert inbox.take(10.0) == [request(1), news, FromInside(request(2))]
    assert inbox.take(0.0) == []


def test_a_wake_up_ends_the_waiting(inbox):
    reader = threading.Thread(target=lambda: inbox.take(600.0), daemon=True)
    reader.start()
    inbox.wake()
    reader.join(60)
    assert not reader.is_alive()


def test_the_network_is_held_back(inbox):
    """Beyond so many requests its thread waits; what is taken lets it go on, and nothing is lost."""
    asked = [request(n) for n in range(3 * REQUESTS_MAX)]
    network = threading.Thread(target=lambda: [inbox.deliver(each) for each in asked])
    network.start()
    taken = []
    while len(taken) < len(asked):
        some = inbox.take(10.0)
        assert 0 < len(some) <= REQUESTS_MAX
        taken += some
    network.join(60)
    assert taken == asked and not network.is_alive()


def test_nobody_waits_for_a_reader_that_has_stopped(inbox, stopping):
    network = threading.Thread(target=lambda: [inbox.deliver(request(n)) for n in range(REQUESTS_MAX + 1)])
    network.start()
    stopping.set()
    network.join(60)
    assert not network.is_alive()
