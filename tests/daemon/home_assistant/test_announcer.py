"""When Home Assistant is told of the device, and when it is taken back."""

import json
from random import Random

import pytest

from edgebit.daemon.config.sections import HomeAssistantConfig
from edgebit.daemon.contract.messages import Incoming
from edgebit.daemon.contract.topics import DeviceTopics
from edgebit.daemon.home_assistant.announcer import Announcer
from edgebit.daemon.home_assistant.discovery import DeviceFacts

TOPIC = "homeassistant/device/edgebit_pi/config"


class Broker:
    packet_max = 0

    def __init__(self):
        self.sent = []

    def publish(self, message):
        self.sent.append(message)
        return True


def facts(*sensors, device="pi"):
    return DeviceFacts(
        topics=DeviceTopics("edgebit", device), principal="homeassistant", version="1", machine="Pi", model="m",
        assists=False, sensors=frozenset(sensors), interval_s=30.0,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """Makes announcers that share a state folder, as over restarts: place(enabled=True) gives one and its broker."""

    def make(**config):
        broker, now = Broker(), [0.0]
        settings = HomeAssistantConfig(**{"enabled": True, **config})
        mark = tmp_path / "home_assistant"
        return Announcer(settings, broker, mark, clock=lambda: now[0], rng=Random(1)), broker.sent, now

    return make


def birth(payload=b"online", topic="homeassistant/status"):
    return Incoming(topic=topic, payload=payload, received=0.0)


def test_at_every_connection(place):
    """Retained, and again at the next connection: the broker may have lost it."""
    announcer, sent, _ = place()
    announcer.connected(facts("t_soc"))
    announcer.connected(facts("t_soc"))
    assert [(message.topic, message.retain, message.qos) for message in sent] == [(TOPIC, True, 1)] * 2
    assert json.loads(sent[0].payload)["device"]["name"] == "pi"


def test_only_what_has_changed(place):
    """A new sensor is told; one that cannot be read for a while does not make its entity come and go."""
    announcer, sent, _ = place()
    announcer.connected(facts("t_soc"))
    announcer.changed(facts("t_soc"))
    announcer.changed(facts())
    assert len(sent) == 1
    announcer.changed(facts("power"))
    assert {"t_soc", "power"} <= set(json.loads(sent[-1].payload)["components"]) and len(sent) == 2


def test_some_time_after_home_assistants_birth(place):
    """Not at once: many devices hear the same word. A second birth before that does not make it two."""
    announcer, _, now = place()
    assert announcer.hears(birth()) and not announcer.tick()
    now[0] = 0.1
    assert not announcer.tick()
    assert announcer.hears(birth())
    now[0] += HomeAssistantConfig().birth_delay_s
    assert announcer.tick() and not announcer.tick()


def test_other_words_and_topics(place):
    """`offline` asks for nothing, and a request is no birth; switched off, nothing is."""
    announcer, _, now = place()
    assert announcer.hears(birth(b"offline")) and not announcer.hears(birth(topic="edgebit/v1/pi/in/a/ping"))
    now[0] = 1000.0
    assert not announcer.tick()
    assert not place(enabled=False)[0].hears(birth())
    assert not place(birth_topic="")[0].hears(birth(topic=""))


def test_switched_off_it_is_taken_back_once(place):
    """After a restart too: an empty retained message takes the device off Home Assistant."""
    place()[0].connected(facts())
    announcer, sent, _ = place(enabled=False)
    announcer.connected(facts())
    announcer.connected(facts())
    assert [(message.topic, message.payload, message.retain) for message in sent] == [(TOPIC, b"", True)]


@pytest.mark.parametrize(("config", "device"), [({"prefix": "ha"}, "pi"), ({}, "pj")])
def test_under_another_name_the_old_one_goes(place, config, device):
    """Another prefix or device name leaves no dead device behind."""
    place()[0].connected(facts())
    announcer, sent, _ = place(**config)
    announcer.connected(facts(device=device))
    assert (sent[0].topic, sent[0].payload) == (TOPIC, b"")
    assert sent[1].topic != TOPIC and sent[1].payload and len(sent) == 2


def test_a_folder_that_cannot_be_written(place, tmp_path):
    """A full disk does not keep the device from Home Assistant."""
    (tmp_path / "home_assistant").mkdir()
    announcer, sent, _ = place()
    announcer.connected(facts())
    assert [message.topic for message in sent] == [TOPIC]


def test_never_switched_on_nothing_is_said(place):
    announcer, sent, _ = place(enabled=False)
    announcer.connected(facts())
    announcer.changed(facts("t_soc"))
    assert not sent
