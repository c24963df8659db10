"""Batches: who belongs to one, and when it is over."""

import json

import pytest

from edgebit.daemon.admission.batches import Batches
from edgebit.daemon.contract.frames import AnswerWriter
from edgebit.daemon.contract.messages import Address, Refusal


class Sent:
    def __init__(self, packet_max=0):
        self.packet_max = packet_max
        self.bodies = []

    def publish(self, message):
        self.bodies.append(json.loads(message.payload))
        return True

    def writer(self):
        address = Address(
            principal="a", id="b", id_given=True, topic="t", topic_given=False, correlation=None, deadline=10.0
        )
        return AnswerWriter(self, "pi", address, clock=lambda: 0.0)


def test_the_summary_comes_once_and_last():
    """Ends may come in any order and more than once; other principals' jobs of the same id count for nothing."""
    batches, sent = Batches(), Sent()
    assert batches.begin(("a", "b"), b"1", ["x", "y"], sent.writer())
    batches.item_ended(("a", "y"), 408, "expired")
    batches.item_ended(("other", "x"), 200)
    batches.item_ended(("a", "y"), 200)
    assert batches.unfinished(("a", "b")) == ["x"] and not sent.bodies
    batches.item_ended(("a", "x"), 200)
    batches.item_ended(("a", "x"), 200)
    (summary,) = sent.bodies
    assert (summary["answered"], summary["failed"]) == (1, 1)
    assert summary["items"] == [{"id": "x", "status": 200}, {"id": "y", "status": 408, "code": "expired"}]
    assert batches.progress(("a", "b")) is None and batches.unfinished(("a", "b")) == []


def test_one_job_may_belong_to_two_batches():
    """Sent again within another batch, it ends for both."""
    batches, one, two = Batches(), Sent(), Sent()
    assert batches.begin(("a", "b"), b"1", ["x"], one.writer())
    assert batches.begin(("a", "c"), b"2", ["x"], two.writer())
    batches.item_ended(("a", "x"), 200)
    assert len(one.bodies) == len(two.bodies) == 1


def test_an_item_that_becomes_no_job_ends_for_its_own_batch():
    """Another batch's job of that id is in flight."""
    batches, one, two = Batches(), Sent(), Sent()
    assert batches.begin(("a", "b"), b"1", ["x"], one.writer())
    assert batches.begin(("a", "c"), b"2", ["x", "y"], two.writer())
    batches.item_refused(("a", "c"), "x", Refusal(409, "id_in_use", "another"))
    batches.item_refused(("a", "c"), "y", Refusal(400, "bad_field", "what"))
    assert two.bodies[0]["items"][0] == {"id": "x", "status": 409, "code": "id_in_use"}
    assert batches.unfinished(("a", "b")) == ["x"] and not one.bodies
    batches.item_ended(("a", "x"), 200)
    assert one.bodies[0]["answered"] == 1


def test_only_a_batch_in_flight_is_written_down():
    """With how its items have ended until then."""
    batches, sent, written = Batches(), Sent(), []
    assert batches.begin(("a", "b"), b"1", ["x", "y"], sent.writer())
    batches.item_ended(("a", "y"), 200)
    batches.write_down(("a", "b"), written.append)
    assert written == [{"x": None, "y": {"status": 200}}]
    batches.item_ended(("a", "x"), 200)
    batches.write_down(("a", "b"), written.append)
    assert len(written) == 1 and len(sent.bodies) == 1


def test_the_same_batch_again():
    """While it is in flight it is joined; another one under its id is refused; afterwards the id is free."""
    batches, sent = Batches(), Sent()
    assert batches.begin(("a", "b"), b"1", ["x"], sent.writer())
    assert not batches.begin(("a", "b"), b"1", ["x"], sent.writer())
    with pytest.raises(Refusal) as refused:
        batches.begin(("a", "b"), b"2", ["x"], sent.writer())
    assert refused.value.status == 409
    batches.item_ended(("a", "x"), 200)
    assert batches.begin(("a", "b"), b"2", ["x"], sent.writer())


def test_a_summary_that_is_too_large_keeps_its_counts():
    """The items' ends can be asked for one by one."""
    batches, sent = Batches(), Sent(packet_max=1024)
    ids = [f"item-{n}" for n in range(60)]
    batches.begin(("a", "b"), b"1", ids, sent.writer())
    for item_id in ids:
        batches.item_ended(("a", item_id), 200)
    assert sent.bodies[0]["answered"] == 60 and "items" not in sent.bodies[0]
