"""A question to a pool: who is followed, when it is sent again, and when it is given up."""

import json
import random

import pytest

from edgebit.daemon.contract.topics import PoolTopics
from edgebit.errors import DeviceError, NoAnswerError
from edgebit.mqtt_client import pool
from edgebit.mqtt_client.answers import Exchange
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.mqtt_client.device_states import DeviceState
from edgebit.mqtt_client.pool import (
    ATTEMPTS_MAX,
    BACKOFF_CAP_S,
    BACKOFF_S,
    FIRST_REPLY_S,
    PoolCall,
    absence,
    pools_of,
    stream_from_pool,
)

BUSY = {"seq": 0, "done": True, "error": {"status": 503, "code": "queue_full", "message": "full", "retryable": True}}
ACK = {"seq": 0, "t": "ack"}
DONE = {"seq": 2, "t": "done", "done": True}


def delta(seq, text):
    return {"seq": seq, "t": "delta", "d": text}


@pytest.fixture
def call():
    """One that was sent at second 0."""
    call = PoolCall(random.Random(0))
    assert call.is_due(0.0)
    call.sent(0.0)
    return call


def test_the_first_who_takes_it_is_followed(call):
    """Whoever answers too is told once to leave it."""
    call.hear("pa", ACK, 1.0)
    assert call.hear("pb", ACK, 1.1) == "" and call.hear("pb", delta(1, "no"), 1.2) == ""
    assert call.take_strays() == {"pb"} and call.take_strays() == set()
    assert call.hear("pa", delta(1, "yes"), 1.3) == "yes"
    call.hear("pb", DONE, 1.4)
    assert not call.assembler.complete and not call.take_strays()
    call.hear("pa", DONE, 1.5)
    assert call.assembler.complete and call.device == "pa" and not call.is_due(99.0)


def test_a_refusal_sends_it_elsewhere_after_a_while(call):
    """Longer each time, and bounded; the reasons are kept by device."""
    now = 0.0
    for attempt in range(1, ATTEMPTS_MAX):
        call.hear("pa", BUSY, now)
        longest = min(BACKOFF_CAP_S, BACKOFF_S * 2 ** (attempt - 1))
        assert now + longest / 2 <= call.next_at <= now + longest
        now = call.next_at
        assert call.is_due(now) and not call.is_due(now - 0.01)
        call.sent(now)
    call.hear("pb", BUSY, now)
    assert call.is_given_up(call.next_at) and not call.is_due(call.next_at)
    assert call.refusals == {"pa": "pa: full (503 queue_full). Ask again", "pb": "pb: full (503 queue_full). Ask again"}


def test_silence_sends_it_again(call):
    """Nobody has said within the time that the question was taken."""
    assert not call.is_due(FIRST_REPLY_S - 0.1) and call.is_due(FIRST_REPLY_S)


@pytest.mark.parametrize(
    "error",
    [
        {"status": 503, "code": "fault", "retryable": False},
        {"status": 429, "code": "rate_limited", "retryable": True},
        {"status": 400, "code": "bad_json", "retryable": False},
        {"status": 500, "code": "engine", "retryable": True},
        {"status": [503], "retryable": True},
        "503",
    ],
)
def test_other_errors_are_the_answer(call, error):
    """Another device would say the same, or may not be asked in its place."""
    call.hear("pa", {"seq": 0, "done": True, "error": error}, 1.0)
    assert call.device == "pa" and call.assembler.complete


def test_a_refusal_after_it_was_taken(call):
    """While nothing is shown another may do it; once something is, it is the caller's to ask again."""
    call.hear("pa", ACK, 1.0)
    call.hear("pa", {**BUSY, "seq": 1}, 2.0)
    assert call.device is None and call.is_due(3.0)
    call.sent(3.0)
    call.hear("pb", ACK, 3.1)
    call.hear("pb", delta(1, "half"), 3.2)
    call.hear("pb", {**BUSY, "seq": 2}, 3.3)
    assert call.device == "pb" and call.assembler.complete and call.assembler.last["error"]


def test_a_device_that_is_lost(call):
    """Others that go away do not matter."""
    call.hear("pa", ACK, 1.0)
    call.lost("pb", "lost", 1.1)
    assert call.device == "pa"
    call.lost("pa", "lost", 1.2)
    assert call.device is None and call.refusals == {"pa": "pa went lost"}
    call.sent(2.0)
    call.hear("pb", ACK, 2.1)
    call.hear("pb", delta(1, "half"), 2.2)
    with pytest.raises(NoAnswerError, match="pb went offline before it had answered"):
        call.lost("pb", "offline", 2.3)


def device(name, availability="online", **status):
    return DeviceState(name, availability, {}, status)


def test_who_is_in_which_pool():
    """As the devices say it; one that is away is in none, and nonsense is no membership."""
    assert pools_of(device("pa", pools={"lab": True, "den": False})) == {"lab": True, "den": False}
    assert pools_of(device("pa", "lost", pools={"lab": True})) == {"lab": False}
    assert pools_of(device("pa", pools={"lab": "yes"})) == {"lab": False}
    assert pools_of(device("pa", pools=["lab"])) == {} and pools_of(device("pa")) == {}


def test_why_nobody_is_there():
    """Those that belong to the pool with what they say of themselves, or where a pool is made."""
    away = device("pa", "lost", pools={"lab": True}, state="ready")
    hot = device("pb", pools={"lab": False}, state="hot")
    assert (
        absence("lab", [away, hot]) == "nobody is in pool 'lab' now. To it belong pa (lost), pb (hot). Ask again later"
    )
    assert "[pool] names" in absence("den", [away, hot])


both = pytest.mark.parametrize("protocol", ["5", "3.1.1"])
REFUSAL = {
    "t": "error",
    "done": True,
    "error": {"status": 503, "code": "not_in_pool", "message": "gone", "retryable": True},
}


class Member:
    """Stands in for a device: does to the n-th request what `script` has at that place, and after its end the last."""

    def __init__(self, ear, name, script):
        self.asked = []

        def answer(client, userdata, message):
            asked = json.loads(message.payload)
            frames = script[min(len(self.asked), len(script) - 1)]
            self.asked.append(asked)
            for seq, frame in enumerate(frames):
                topic = f"edgebit/v1/{name}/out/alice/{asked['id']}"
                client.publish(topic, json.dumps({"id": asked["id"], "seq": seq, "dev": name, **frame}), 1)

        ear.client.on_message = answer
        ear.say(f"edgebit/v1/{name}/availability", {"state": "online"}, retain=True)
        ear.say(f"edgebit/v1/{name}/status", {"state": "ready", "pools": {"lab": True}}, retain=True)


ANSWER = [
    {"t": "ack", "queue_len": 0},
    {"t": "delta", "d": "hi "},
    {"t": "delta", "d": "you"},
    {"t": "done", "done": True},
]


@pytest.fixture
def ask(broker):
    """Asks pool lab as alice; gives the text and the exchange."""

    def run(protocol="5", timeout_s=20):
        exchange = Exchange("q1")
        with DeviceClient(parse_broker_url(broker.url), principal="alice", protocol=protocol) as client:
            pieces = stream_from_pool(client, "lab", "generate", {"prompt": "x"}, exchange, timeout_s=timeout_s)
            return "".join(pieces), exchange

    return run


@pytest.fixture
def member(broker, ears):
    """Connects one with a script."""

    def connect(name, *script):
        return Member(ears(broker.port, PoolTopics("edgebit", "lab").share), name, script)

    return connect


@both
def test_a_refused_question_is_sent_again_as_it_was(ask, member, protocol):
    """Same id, same content, until one takes it; its name is known then."""
    pa = member("pa", [REFUSAL], [REFUSAL], ANSWER)
    text, exchange = ask(protocol)
    assert (text, exchange.text, exchange.device, exchange.lost) == ("hi you", "hi you", "pa", 0)
    assert len(pa.asked) == 3 and pa.asked[0] == pa.asked[1] == pa.asked[2] and pa.asked[0]["ack"] is True


@both
def test_a_silent_member_is_not_waited_for(ask, member, monkeypatch, protocol):
    """The second attempt is answered, though the first one vanished."""
    monkeypatch.setattr(pool, "FIRST_REPLY_S", 0.3)
    pa = member("pa", [], ANSWER)
    assert ask(protocol)[0] == "hi you" and len(pa.asked) == 2


def test_no_member_takes_it(ask, member, monkeypatch):
    """Bounded; the words are the devices' own."""
    monkeypatch.setattr(pool, "BACKOFF_S", 0.001)
    pa = member("pa", [REFUSAL])
    with pytest.raises(NoAnswerError, match=r"asked 6 times: pa: gone \(503 not_in_pool\)"):
        ask()
    assert len(pa.asked) == ATTEMPTS_MAX


def test_an_error_that_others_would_give_too(ask, member):
    """It is the answer."""
    member("pa", [{"t": "error", "done": True, "error": {"status": 400, "code": "bad_field", "message": "no"}}])
    with pytest.raises(DeviceError, match="pa: no"):
        ask()


def test_nobody_is_there(ask, ears, broker, monkeypatch):
    """The broker says so; under 3.1.1, or where others listen, what devices say is read after the first silence."""
    with pytest.raises(NoAnswerError, match="no device says that it belongs to it"):
        ask()
    monkeypatch.setattr(pool, "FIRST_REPLY_S", 0.3)
    with pytest.raises(NoAnswerError, match="no device says that it belongs to it"):
        ask("3.1.1")
    ears(broker.port, "edgebit/#")
    with pytest.raises(NoAnswerError, match="no device says that it belongs to it"):
        ask()


def test_too_late(ask, member):
    """The time is over while a device computes."""
    member("pa", ANSWER[:2])
    with pytest.raises(NoAnswerError, match="pa is online, but had not finished its answer within 1 s"):
        ask(timeout_s=1)
