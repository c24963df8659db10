"""Acknowledgements in the order of arrival, and none for a connection that is gone; deliveries, each told once."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from edgebit.daemon.connection.acknowledgements import Deliveries, Receipts
from edgebit.daemon.contract.frames import Outgoing


@given(st.permutations(range(5)))
def test_acknowledged_in_the_order_of_arrival(order):
    """In whatever order they are taken, as soon as all before them are."""
    receipts, sent = Receipts(), []
    takes = [receipts.received(lambda n=n: sent.append(n)) for n in range(5)]
    for step, taken in enumerate(order):
        takes[taken]()
        together = set(order[: step + 1])
        assert sent == list(range(next(n for n in range(6) if n not in together)))


def test_taken_twice_is_acknowledged_once():
    receipts, sent = Receipts(), []
    take = receipts.received(lambda: sent.append(1))
    take()
    take()
    assert sent == [1]


def test_a_connection_before_is_not_acknowledged():
    """Its packet ids mean other messages by now."""
    receipts, sent = Receipts(), []
    old = receipts.received(lambda: sent.append("old"))
    receipts.forget()
    new = receipts.received(lambda: sent.append("new"))
    old()
    assert sent == []
    new()
    assert sent == ["new"]


def message(told, name, qos=1):
    return Outgoing(topic=name, payload=b"", qos=qos, delivered=lambda: told.append(name))


def test_a_delivery_is_told_once():
    deliveries, told = Deliveries(), []
    deliveries.sent(1, message(told, "a"))
    deliveries.sent(2, message(told, "b"))
    for packet_id in (2, 2, 1):
        deliveries.confirmed(packet_id)
    assert told == ["b", "a"]


def test_a_broker_may_be_faster_than_we_are():
    """PUBACK is there before publish() has given the packet id."""
    deliveries, told = Deliveries(), []
    deliveries.confirmed(1)
    deliveries.sent(1, message(told, "a"))
    assert told == ["a"] and deliveries.take_all() == []


def test_without_a_listener():
    deliveries = Deliveries()
    deliveries.sent(1, Outgoing(topic="a", payload=b""))
    deliveries.confirmed(1)
    assert deliveries.take_all() == []


def test_what_another_client_takes_over():
    """Unconfirmed QoS 1, in order; QoS 0 ends with its connection, and its packet id may come again."""
    deliveries, told = Deliveries(), []
    for packet_id, (name, qos) in enumerate([("a", 1), ("b", 0), ("c", 1)], 1):
        deliveries.sent(packet_id, message(told, name, qos))
    deliveries.connection_ended()
    assert [each.topic for each in deliveries.take_all()] == ["a", "c"]
    assert deliveries.take_all() == [] and told == []


def test_in_two_threads():
    """Each of many messages is told exactly once, whichever thread comes first."""
    deliveries, told = Deliveries(), []
    numbers = range(1, 2001)
    confirming = threading.Thread(target=lambda: [deliveries.confirmed(n) for n in numbers])
    confirming.start()
    for n in numbers:
        deliveries.sent(n, message(told, n))
    confirming.join()
    assert sorted(told) == list(numbers)
