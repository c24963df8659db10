"""What somebody who may publish to the device can try: each refused with its code, and counted under it."""

import json

import pytest
from mqtt_packets import Message
from protocol_world import BASE, StubSide, World

ME = "eve"
IN, OUT = f"{BASE}/in/{ME}", f"{BASE}/out/{ME}"
ATTEMPTS = 300  # of a flood


@pytest.fixture(scope="module", params=["5", "3.1.1"])
def world(request, tmp_path_factory):
    made = World(StubSide({}), tmp_path_factory.mktemp("attacked") / "device", request.param, {})
    yield made
    made.close()


def refused_at(world, topic, attacks, status, code):
    """Each attack, a payload and properties, is answered to the attacker's own topic, nowhere else, and counted."""
    world.begin()
    before = world.counters().get(code, 0)
    for payload, properties in attacks:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        world.send(Message(topic=topic, payload=body, properties=properties))
        reply = world.take(lambda message: message.topic.startswith((f"{OUT}/", "clients/")))
        error = json.loads(reply.payload)["error"]
        assert (error["status"], error["code"]) == (status, code), (payload[:80], properties)
        assert reply.topic == f"{OUT}/{json.loads(reply.payload)['id']}"
    assert world.counters()[code] - before == len(attacks)
    assert not world.pending, "something was said elsewhere"


PLACES = [
    "homeassistant/light/config",
    "homeassistant/device/pi/config",
    f"{IN}/generate",
    f"{BASE}/in/alice/generate",
    f"{BASE}/availability",
    f"{BASE}/info",
    f"{BASE}/out/alice/x",
    f"{BASE}/out/{ME}",
    f"{OUT}/",
    f"{OUT}x/y",
    f"other/v1/pi/out/{ME}/x",
    f"edgebit/v2/pi/out/{ME}/x",
    f"/{OUT}/x",
    "$SYS/broker/uptime",
    "$CONTROL/dynamic-security/v1",
    f"$share/g/{OUT}/x",
    f"{OUT}/#",
    f"edgebit/v1/+/out/{ME}/x",
    f"{OUT}/" + "x" * 240,
    f"{OUT}/\ufffe",
    f"{OUT}/\x00",
    f"{OUT}/\x1b[2J",
    f"{OUT}/\ud800",
    "clients/alice/x",
    "clients/eve",
    "",
]


def test_places_for_answers(world):
    """The device has its own rights at the broker and lends them to nobody."""
    refused_at(world, f"{IN}/ping", [({"reply_to": place}, {}) for place in PLACES], 403, "response_topic")
    if world.mqtt5:
        named = [(b"", {"response_topic": place}) for place in PLACES if "\ud800" not in place and "\x00" not in place]
        refused_at(world, f"{IN}/ping", named, 403, "response_topic")


def test_places_for_the_items_of_a_batch(world):
    """Each is held to the same, and told on the default topic of its own."""
    world.begin()
    for place in PLACES:
        batch = {"id": "b", "items": [{"prompt": "say 1", "reply_to": place}]}
        world.send(Message(topic=f"{IN}/batch", payload=json.dumps(batch).encode()))
        item = world.take(lambda message: message.topic == f"{OUT}/b.0")
        assert json.loads(item.payload)["error"]["code"] == "response_topic", place
        summary = world.take(lambda message: message.topic == f"{OUT}/b")
        assert json.loads(summary.payload)["failed"] == 1
    world.wait_idle()
    assert not world.pending


NOT_JSON = [
    b'{"prompt":',
    b'{"prompt":"a"} x',
    b'{"prompt":"a","prompt":"b"}',
    b'{"prompt":"a","temperature":NaN}',
    b'{"prompt":"a","seed":' + b"9" * 5000 + b"}",
    b'{"prompt":"x","a":' + b"[" * 16 + b"]" * 16 + b"}",
    b'{"prompt":"x","a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"a":' * 13_000,
    b"{" + b"[" * 60_000,
]


def test_json_that_is_none_or_deep(world):
    refused_at(world, f"{IN}/generate", [(body, {}) for body in NOT_JSON], 400, "bad_json")


def test_bytes_that_are_no_text(world):
    bodies = [b"caf\xe9", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b'{"prompt":"\\ud800"}', b"\xf8\x88\x80\x80\x80"]
    refused_at(world, f"{IN}/generate", [(body, {}) for body in bodies], 400, "bad_utf8")


def test_oversized(world):
    bodies = [b"x" * 65_537, b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"x" * 5_000_000]
    refused_at(world, f"{IN}/generate", [(body, {}) for body in bodies], 413, "payload_too_large")


def test_ids_that_are_topics(world):
    given = ["#", "+", "../x", "a/b", "", "x" * 65, "a\x00", "é"]
    refused_at(world, f"{IN}/generate", [({"prompt": "a", "id": name}, {}) for name in given], 400, "bad_id")
    if world.mqtt5:
        named = [(b"say 1", {"user": [("eb-id", name)]}) for name in given if "\x00" not in name]
        refused_at(world, f"{IN}/generate", named, 400, "bad_id")


def test_forged_properties(world):
    """Who asks stands in the topic alone: what else claims to say it changes nothing."""
    if not world.mqtt5:
        return
    world.begin()
    claims = [("$client_username", "alice"), ("$clientid", "edgebit-pi"), ("principal", "alice"), ("eb-dev", "other")]
    fields = {"prompt": "say 1", "id": "x", "principal": "alice", "user": "alice", "dev": "other"}
    world.send(Message(topic=f"{IN}/generate", payload=json.dumps(fields).encode(), properties={"user": claims}))
    reply = world.take(lambda message: message.topic == f"{OUT}/x")
    assert dict(reply.properties["user"])["eb-dev"] == "pi"
    conflicts = [
        {"user": [("eb-id", "a"), ("eb-ver", "1")]},
        {"user": [("eb-id", "b")], "response_topic": f"{OUT}/other"},
        {"response_topic": f"{OUT}/other"},
    ]
    body = {"prompt": "say 1", "id": "c", "reply_to": f"{OUT}/c", "ver": 1}
    for properties in conflicts:
        world.send(Message(topic=f"{IN}/generate", payload=json.dumps(body).encode(), properties=properties))
        reply = world.take(lambda message: message.topic.startswith(f"{OUT}/"))
        assert json.loads(reply.payload)["error"]["code"] == "conflict"
    world.wait_idle()
    assert not world.pending
    correlations = [(b"say 1", {"correlation": b"x" * size}) for size in (65, 60_000)]
    refused_at(world, f"{IN}/generate", correlations, 400, "bad_correlation")


def test_retained_prompts(world):
    """Not run: neither now, nor at each connection of the years to come."""
    world.begin()
    before = world.counters().get("retained", 0)
    prompt = Message(topic=f"{IN}/generate", payload=b'{"id":"r","prompt":"say 1"}', retain=True)
    world.side.broker.go_down()
    world.side.broker.publish(Message(**{**fields_of(prompt), "qos": 0}))
    world.side.broker.come_up()
    if world.mqtt5:
        world.side.wait_subscribed()
        world.send(prompt)
        reply = world.take(lambda message: message.topic == f"{OUT}/r")
        assert json.loads(reply.payload)["error"]["code"] == "retained"
    assert world.counters()["retained"] - before == 1
    assert not world.pending
    world.side.broker.publish(Message(topic=prompt.topic, retain=True, qos=0))


def fields_of(message):
    return {name: getattr(message, name) for name in Message.__slots__}


def test_topics_of_no_caller(world):
    """Counted, and nobody is answered: there is nobody whose topic it could be."""
    world.begin()
    before = world.counters().get("bad_topic", 0)
    topics = ["in/+/generate", "in/#/generate", "in//generate", "in/a b/generate", "in/" + "x" * 65 + "/generate"]
    for topic in [*topics, "in/\ud800/generate", "in/é/generate"]:
        world.send(Message(topic=f"{BASE}/{topic}", payload=b"say 1"))
    assert world.counters()["bad_topic"] - before == len(topics) + 2
    assert not world.pending


def test_operations_that_are_none(world):
    world.begin()
    before = world.counters().get("unknown_op", 0)
    ops = ("explode", "GENERATE", "%s", "x" * 5000, "\x1b[2J")
    for op in ops:
        world.send(Message(topic=f"{IN}/{op}", payload=b"x"))
        reply = world.take(lambda message: message.topic.startswith(f"{OUT}/"))
        assert json.loads(reply.payload)["error"]["code"] == "unknown_op"
        assert len(reply.payload) < 500, "what was sent is not sent back whole"
    assert world.counters()["unknown_op"] - before == len(ops)


def test_a_flood(world):
    """More than can wait is refused at once and counted, all of it is answered, and others are still heard."""
    world.begin()
    before = world.counters()
    for number in range(ATTEMPTS):
        fields = {"id": f"f{number}", "prompt": "slow 1000", "max_tokens": 1000}
        world.send(Message(topic=f"{IN}/generate", payload=json.dumps(fields).encode()))
    pong = Message(topic=f"{BASE}/in/alice/ping", payload=b"")
    world.send(pong)
    world.take(lambda message: message.topic.startswith(f"{BASE}/out/alice/"))
    for number in range(ATTEMPTS):
        world.send(Message(topic=f"{IN}/cancel", payload=f"f{number}".encode()))
    ends = [
        json.loads(world.take(lambda message: message.topic.startswith(f"{OUT}/f")).payload)["error"]
        for _ in range(ATTEMPTS)
    ]
    now = world.counters()
    counted = {error["code"]: now[error["code"]] - before.get(error["code"], 0) for error in ends}
    assert counted == {code: [error["code"] for error in ends].count(code) for code in counted}
    assert sum(counted.values()) == ATTEMPTS and counted["cancelled"] < 60
    for error in ends:
        assert error["code"] == "cancelled" or (error["status"] in (429, 503) and error["retryable"])
        assert error["code"] == "cancelled" or error["retry_after_ms"] > 0
    assert not world.pending
