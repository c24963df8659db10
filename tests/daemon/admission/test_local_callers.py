"""Requests from inside: on the way of all others, and answered without the broker."""

import json

import pytest

from edgebit.daemon.admission.local_callers import LocalCallers
from edgebit.daemon.config.sections import Config, DeviceConfig
from edgebit.daemon.contract.addressing import address_of
from edgebit.daemon.contract.fields import read_fields
from edgebit.daemon.contract.frames import AnswerWriter, Outgoing
from edgebit.daemon.contract.messages import Incoming
from edgebit.daemon.contract.topics import DeviceTopics

CONFIG = Config(device=DeviceConfig(name="pi"))
TOPICS = DeviceTopics("edgebit", "pi")


class Broker:
    packet_max = 4096

    def __init__(self):
        self.sent = []

    def publish(self, message):
        self.sent.append(message.topic)
        return True


@pytest.fixture
def inside():
    """Local callers with principal `wyoming`, what they have sent in, and the broker's side."""
    broker, sent = Broker(), []
    return LocalCallers(broker, TOPICS, ["wyoming"], sent.append, clock=lambda: 5.0), sent, broker


def read(incoming):
    """Fields and address, as admission reads them."""
    fields = read_fields(incoming, "chat", CONFIG)
    return fields, address_of(incoming, "wyoming", fields, TOPICS, CONFIG)


def test_a_question_is_a_request_like_any(inside):
    """What goes into the inbox is read as if it had come from the broker, and its answer comes back in here."""
    callers, sent, broker = inside
    heard = []
    job_id = callers.ask("wyoming", "chat", {"prompt": "hi", "ttl_ms": 1000}, heard.append)
    (incoming,) = sent
    fields, address = read(incoming)
    assert incoming.topic == TOPICS.request("wyoming", "chat") and fields["prompt"] == "hi"
    assert (address.id, address.deadline) == (job_id, 6.0)
    AnswerWriter(callers, "pi", address).done({}, "")
    assert [json.loads(message.payload)["t"] for message in heard] == ["done"] and not broker.sent


def test_each_question_has_its_own_answer(inside):
    callers, sent, _ = inside
    heard = {}
    ids = [
        callers.ask("wyoming", "chat", {"prompt": name}, lambda message, name=name: heard.update({name: message.topic}))
        for name in ("a", "b")
    ]
    for incoming in reversed(sent):
        AnswerWriter(callers, "pi", read(incoming)[1]).done({}, "")
    assert heard == {name: TOPICS.reply("wyoming", job) for name, job in zip(("a", "b"), ids, strict=True)}


def test_cancel(inside):
    """The job is named, and its last word goes nowhere: not to the broker either."""
    callers, sent, broker = inside
    heard = []
    job_id = callers.ask("wyoming", "chat", {"prompt": "hi"}, heard.append)
    callers.cancel("wyoming", job_id)
    assert sent[-1].topic == TOPICS.request("wyoming", "cancel") and json.loads(sent[-1].payload) == {"id": job_id}
    AnswerWriter(callers, "pi", read(sent[0])[1]).done({}, "")
    assert not heard and not broker.sent


def test_others_are_the_brokers(inside):
    """Everything that is not for a local principal passes; another device's topics are none of ours."""
    callers, _, broker = inside
    topics = [TOPICS.reply("alice", "1"), TOPICS.status, "edgebit/v1/pj/out/wyoming/1", TOPICS.reply("wyomings", "1")]
    for topic in topics:
        assert callers.publish(Outgoing(topic=topic, payload=b""))
    assert broker.sent == topics and callers.packet_max == 4096


@pytest.mark.parametrize(
    ("topic", "owned"),
    [
        (TOPICS.request("wyoming", "chat"), True),
        (TOPICS.request("wyoming", "cancel"), True),
        (TOPICS.request("alice", "chat"), False),
        ("homeassistant/status", False),
        ("edgebit/v1/pi/in/wyoming", True),
    ],
)
def test_nobody_asks_in_its_name_over_the_broker(inside, topic, owned):
    assert inside[0].owns(Incoming(topic=topic, payload=b"", received=0.0)) is owned
