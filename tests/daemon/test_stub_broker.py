"""The tests' own broker against paho's clients, which know nothing of it: what it says must be MQTT."""

import queue

import pytest
from mqtt_fixtures import WAIT_S, Ear
from mqtt_packets import Message
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions
from stub_broker import Fault, StubBroker

both = pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])


@pytest.fixture
def stub():
    broker = StubBroker()
    yield broker
    broker.close()


@both
def test_messages_between_clients(stub, ears, mqtt5):
    """Both ways, with wildcards, properties, and payloads of all lengths of the length itself."""
    one, two = ears(stub.port, "a/+/c", "deep/#", mqtt5=mqtt5), ears(stub.port, "z", mqtt5=mqtt5)
    for size in (0, 1, 120, 130, 20_000, 3_000_000):
        two.say("a/b/c", b"x" * size)
        assert len(one.next().payload) == size
    two.say("a/b", b"not heard")
    two.say("deep/er/still", "é")
    message = one.next()
    assert (message.topic, message.payload.decode(), message.qos, message.retain) == ("deep/er/still", "é", 1, False)
    one.client.unsubscribe("deep/#")
    one.say("z", b"after")
    assert two.next().payload == b"after"
    two.say("deep/er", b"not heard")
    two.say("a/b/c", b"heard")
    assert one.next().payload == b"heard"


def test_properties(stub, ears):
    ear = ears(stub.port, "a")
    given = {
        "ResponseTopic": "b/ü",
        "CorrelationData": b"\x00\xff",
        "MessageExpiryInterval": 70_000,
        "ContentType": "text/plain",
        "UserProperty": [("n", "1"), ("n", "2")],
    }
    ear.say("a", "x", **given)
    heard = ear.next().properties
    assert {name: getattr(heard, name) for name in given} == given


@both
def test_retained_messages(stub, ears, mqtt5):
    """Kept for who comes later, with the flag; an empty one clears."""
    ears(stub.port, mqtt5=mqtt5).say("state", b"on", retain=True)
    message = ears(stub.port, "#", mqtt5=mqtt5).next()
    assert (message.payload, message.retain) == (b"on", True)
    ear = ears(stub.port, "other", mqtt5=mqtt5)
    ear.say("state", b"", retain=True)
    late = ears(stub.port, "#", mqtt5=mqtt5)
    ear.say("x", b"y")
    assert late.next().topic == "x"


@both
def test_a_will(stub, ears, mqtt5):
    """It is published where a connection breaks, and not where it is ended."""
    ear = ears(stub.port, "will", mqtt5=mqtt5)
    version = MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311
    for _ in range(2):
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version, reconnect_on_failure=False)
        client.will_set("will", b"gone", 1)
        ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        client.on_connect = lambda *args, ready=ready: ready.put(None)
        client.connect("127.0.0.1", stub.port)
        client.loop_start()
        ready.get(timeout=WAIT_S)
        client.disconnect()
        client.loop_stop()
    stub.faults.append(Fault("answer", "cut", lost=False))
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version, reconnect_on_failure=False)
    client.will_set("will", b"lost", 1)
    client.connect("127.0.0.1", stub.port)
    client.publish("cut", b"", 1)
    client.loop_start()
    assert ear.next().payload == b"lost"
    client.loop_stop()


class Kept:
    """A paho client with a session that outlives its connections, which come back by themselves."""

    def __init__(self, port):
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "kept", clean_session=False)
        self.heard: queue.SimpleQueue[paho.MQTTMessage] = queue.SimpleQueue()
        self.client.on_message = lambda client, userdata, message: self.heard.put(message)
        self.client.reconnect_delay_set(0.05, 0.05)
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("in", 1)
        self.client.loop_start()

    def next(self):
        return self.heard.get(timeout=WAIT_S)


@pytest.mark.parametrize(
    ("at", "copies"),
    [("request", [True]), ("request_ack", [False, True]), ("answer", [True]), ("answer_ack", [False, True])],
)
def test_packets_that_are_lost_with_their_connection(stub, at, copies):
    """What was not acknowledged is sent again at the next connection, marked as a duplicate, in both directions."""
    kept = Kept(stub.port)
    stub.wait_subscribed("in")
    stub.faults.append(Fault(at, "in" if at.startswith("request") else "out"))
    if at.startswith("request"):
        stub.publish(Message(topic="in", payload=b"x"))
        assert [kept.next().dup for _ in copies] == copies
    else:
        kept.client.publish("out", b"x", 1)
        assert [stub.heard.get(timeout=WAIT_S).dup for _ in copies] == copies
    assert stub.connections == 2 and not stub.faults
    kept.client.disconnect()
    kept.client.loop_stop()


def test_what_is_published_while_a_client_is_away(stub):
    """Its session keeps it; forget() forgets it."""
    kept = Kept(stub.port)
    stub.wait_subscribed("in")
    stub.go_down()
    stub.publish(Message(topic="in", payload=b"x"))
    stub.come_up()
    assert kept.next().topic == "in"
    stub.go_down()
    stub.publish(Message(topic="in", payload=b"x"))
    stub.forget()
    stub.come_up()
    ear = Ear(stub.port, "x", mqtt5=False)
    kept.client.publish("x", b"back", 1)
    assert ear.next().payload == b"back" and kept.heard.empty()
    ear.close()
    kept.client.disconnect()
    kept.client.loop_stop()


@pytest.mark.parametrize("as_published", [True, False])
def test_retain_flag_of_what_is_published_while_a_client_is_away(stub, as_published):
    """A subscription that asked for it as published gets it so, whether the broker has noticed the end or not."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "kept", protocol=MQTTProtocolVersion.MQTTv5)
    heard = queue.SimpleQueue()
    client.on_message = lambda client, userdata, message: heard.put(message)
    client.will_set("gone")
    client.reconnect_delay_set(0.05, 0.05)
    client.connect("127.0.0.1", stub.port, clean_start=False)
    client.subscribe("in", options=SubscribeOptions(qos=1, retainAsPublished=as_published))
    client.loop_start()
    stub.wait_subscribed("in")
    stub.go_down()
    with pytest.raises(AssertionError, match="nobody subscribes"):
        stub.wait_subscribed("in", 0)
    stub.publish(Message(topic="in", payload=b"x", retain=True))
    assert stub.heard.get(timeout=WAIT_S).topic == "gone"
    stub.publish(Message(topic="in", payload=b"y", retain=True))
    stub.come_up()
    came = {message.payload: message.retain for message in (heard.get(timeout=WAIT_S) for _ in range(2))}
    assert came == {b"x": as_published, b"y": as_published}
    client.disconnect()
    client.loop_stop()
