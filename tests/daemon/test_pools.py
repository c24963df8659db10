"""Three daemons in one pool at a real mosquitto: who is asked, who is not, and where the share of one who goes goes."""

import json
import re
import shutil
import time
from collections import Counter

import pytest
from mqtt_fixtures import TESTS, WAIT_S

NAMES = ("pa", "pb", "pc")
POOL = "edgebit/v1/_pool/lab/in/alice/generate"
TOML = "[pool]\nnames = ['lab']\nrejoin_s = 0.2\n[engine]\nsequences = 1\n"
both = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@pytest.fixture
def pool(broker, daemons, ears):
    """Starts the three, which speak `protocol`, and waits until all are in; gives them by name."""

    def start(protocol="5"):
        found = {name: daemons(broker.url, name=name, toml=TOML, mqtt=f'protocol = "{protocol}"') for name in NAMES}
        for name in NAMES:
            await_place(broker, ears, name, True)
        return found

    return start


def await_place(broker, ears, name, is_in):
    ear = ears(broker.port, f"edgebit/v1/{name}/status")
    ear.until(lambda message: json.loads(message.payload)["pools"] == {"lab": is_in})


def await_end(broker, name):
    """Until the broker knows that the pool connection of a device has ended; that of the device itself is another."""
    deadline = time.monotonic() + WAIT_S
    said = re.compile(rf"Client edgebit-{name}-pool (closed its connection|disconnected)")
    while not said.search(broker.log.read_text()):
        assert time.monotonic() < deadline, broker.log.read_text()
        time.sleep(0.02)


def answerers(ear, count):
    """Who gives the next `count` last frames, by the topic and by the frame."""
    found = Counter()
    while found.total() < count:
        message = ear.next()
        body = json.loads(message.payload)
        if body.get("done"):
            assert message.topic.split("/")[2] == body["dev"]
            assert "error" not in body, body
            found[body["dev"]] += 1
    return found


@both
def test_requests_are_spread(pool, broker, ears, protocol):
    """The broker gives each to one of them, whichever version of MQTT they speak; the answer names the device."""
    pool(protocol)
    ear = ears(broker.port, "edgebit/v1/+/out/alice/#", mqtt5=protocol == "5")
    for number in range(9):
        ear.say(POOL, {"id": f"q{number}", "prompt": "say 1"})
    assert answerers(ear, 9) == dict.fromkeys(NAMES, 3)


def test_who_is_busy_gets_nothing_and_comes_back(pool, broker, ears):
    """Out with four jobs waiting, in again with none: the others have all questions meanwhile."""
    pool()
    ear = ears(broker.port, "edgebit/v1/+/out/alice/#", "edgebit/v1/pb/event")
    own = ears(broker.port, "edgebit/v1/pb/out/bob/#")
    jobs = [f"long{number}" for number in range(5)]
    for job in jobs:
        own.say("edgebit/v1/pb/in/bob/generate", {"id": job, "prompt": "slow 1000", "max_tokens": 1000})
    event = json.loads(ear.until(lambda message: b"pool_left" in message.payload).payload)
    assert (event["pool"], event["reason"]) == ("lab", "too many jobs wait: 4")
    await_place(broker, ears, "pb", False)

    for number in range(8):
        ear.say(POOL, {"id": f"q{number}", "prompt": "say 1"})
    assert answerers(ear, 8) == {"pa": 4, "pc": 4}

    for job in jobs:
        own.say("edgebit/v1/pb/in/bob/cancel", job)
    await_place(broker, ears, "pb", True)
    ear.until(lambda message: b"pool_joined" in message.payload)
    for number in range(6):
        ear.say(POOL, {"id": f"r{number}", "prompt": "say 1"})
    assert answerers(ear, 6) == dict.fromkeys(NAMES, 2)


def test_the_share_of_one_who_dies_goes_to_the_others(pool, broker, ears):
    """Killed, and stopped in good order: once the broker knows, nothing is sent into the void."""
    members = pool()
    ear = ears(broker.port, "edgebit/v1/+/out/alice/#")
    members["pa"].kill()
    await_end(broker, "pa")
    for number in range(6):
        ear.say(POOL, {"id": f"q{number}", "prompt": "say 1"})
    assert answerers(ear, 6) == {"pb": 3, "pc": 3}
    assert members["pb"].stop() == 0
    await_end(broker, "pb")
    for number in range(2):
        ear.say(POOL, {"id": f"r{number}", "prompt": "say 1"})
    assert answerers(ear, 2) == {"pc": 2}


def test_who_is_too_hot_leaves(broker, daemons, ears, tmp_path):
    """The governor's lever, moved by a thermal zone; it comes back when it has cooled."""
    root = tmp_path / "root"
    shutil.copytree(TESTS / "daemon" / "roots" / "pi4", root, symlinks=True)
    heat = root / "sys/class/thermal/thermal_zone0/temp"
    event = ears(broker.port, "edgebit/v1/pa/event")
    daemons(
        broker.url, name="pa", sensors_root=root, toml=f"{TOML}[sensors]\ninterval_s = 0.1\n[governor]\nrest_s = 0.5\n"
    )
    event.until(lambda message: b"pool_joined" in message.payload)

    heat.write_text("95000\n")
    left = json.loads(event.until(lambda message: b"pool_left" in message.payload).payload)
    assert "far too hot" in left["reason"]
    await_place(broker, ears, "pa", False)

    heat.write_text("50000\n")
    event.until(lambda message: b"pool_joined" in message.payload)
    await_place(broker, ears, "pa", True)


def test_what_is_not_for_pools(pool, broker, ears):
    """A cancel by pool would reach anybody; principals from inside stay inside; a retained question is none."""
    pool()
    ear = ears(broker.port, "edgebit/v1/+/out/alice/#")
    ear.say(POOL.replace("generate", "cancel"), "x")
    assert ear.next_json()["error"]["code"] == "not_for_pools"
    ear.say(POOL.replace("generate", "nonsense"), "x")
    assert ear.next_json()["error"]["code"] == "unknown_op"
    ear.say(POOL, "say 1", ResponseTopic="edgebit/v1/_pool/lab/in/alice/generate")
    assert ear.next_json()["error"]["code"] == "response_topic"
