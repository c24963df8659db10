"""A device at a broker, and what its caller sends and hears: the tests' own broker, which can fail, or a mosquitto."""

import json
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from mqtt_fixtures import TESTS, WAIT_S, Broker, DaemonProcess, Ear, check_schema
from mqtt_packets import Message
from stub_broker import StubBroker

BASE = "edgebit/v1/pi"
DEVICE = TESTS / "daemon" / "protocol" / "device.py"
# Beside what a case says: answers may go to one place more, and what is counted is told often.
SETTINGS: dict[str, dict[str, Any]] = {
    "replies": {"allowed_prefixes": ["clients/{principal}/"]},
    "engine": {"sequences": 1},  # one answer after the other, so that their order is known
    "adapters": {"may_load": ["owner"]},
    "serving": {"drain_s": 0},  # a device that is stopped finishes nothing
}
REPORT_S = 0.1
PONG_S = 0.3  # then it is asked anew, and has twice as long
_PROPERTIES = {
    "response_topic": "ResponseTopic",
    "correlation": "CorrelationData",
    "expiry_s": "MessageExpiryInterval",
    "content_type": "ContentType",
    "payload_format": "PayloadFormatIndicator",
    "user": "UserProperty",
}


class Side(Protocol):
    """The caller's side of a broker."""

    url: str

    def send(self, message: Message) -> None:
        """To the device."""

    def take(self, timeout_s: float) -> Message:
        """The next message of the device, or else queue.Empty."""

    def wait_subscribed(self) -> None:
        """Until the device hears requests."""

    def close(self) -> None:
        """Give everything back."""


class StubSide:
    """The tests' own broker; its caller is whoever calls this."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.broker = StubBroker(**settings)
        self.url = self.broker.url

    def send(self, message: Message) -> None:
        self.broker.publish(message)

    def take(self, timeout_s: float) -> Message:
        return self.broker.heard.get(timeout=timeout_s)

    def wait_subscribed(self) -> None:
        self.broker.wait_subscribed(f"{BASE}/in/+/+")

    def close(self) -> None:
        self.broker.close()


class MosquittoSide:
    """A real broker, with a caller of paho's that hears everything."""

    def __init__(self, mqtt5: bool, program: str, folder: Path, settings: dict[str, Any]) -> None:
        lines = [f"max_packet_size {settings['packet_max']}"] if settings else []
        self._broker = Broker(program, folder, "\n".join(["allow_anonymous true", *lines]))
        self._ear = Ear(self._broker.port, "#", mqtt5=mqtt5)
        self.url = self._broker.url

    def send(self, message: Message) -> None:
        named = {_PROPERTIES[name]: value for name, value in message.properties.items()}
        self._ear.say(message.topic, message.payload, qos=message.qos, retain=message.retain, **named)

    def take(self, timeout_s: float) -> Message:
        heard = self._ear.heard.get(timeout=timeout_s)
        given = {name: getattr(heard.properties, paho, None) for name, paho in _PROPERTIES.items()}
        return Message(
            topic=heard.topic,
            payload=heard.payload,
            qos=heard.qos,
            retain=heard.retain,
            properties={name: value for name, value in given.items() if value is not None},
        )

    def wait_subscribed(self) -> None:
        """A ping says so."""

    def close(self) -> None:
        self._ear.close()
        self._broker.stop()


class World:
    """One device that many cases share, one after the other."""

    def __init__(self, side: Side, folder: Path, version: str, settings: dict[str, Any]) -> None:
        self.side = side
        self.mqtt5 = version == "5"
        sections = {name: {**SETTINGS.get(name, {}), **settings.get(name, {})} for name in {**SETTINGS, **settings}}
        toml = "\n".join(f"[{name}]\n{_toml(keys)}" for name, keys in sections.items())
        self.device = DaemonProcess(
            folder,
            side.url,
            mqtt=f'protocol = "{version}"',
            toml=toml,
            program=DEVICE,
            report_s=REPORT_S,
        )
        self.usable = True  # until a case has failed in it
        self._asked_before = 0
        self.pending: list[Message] = []  # heard, and not yet looked for
        self.told: list[Message] = []  # what the device says of itself

    def send(self, message: Message) -> None:
        self.side.send(message)

    def take(self, wanted: Callable[[Message], bool], timeout_s: float = WAIT_S) -> Message:
        """The first message of the device that is wanted, from those that were heard before or come now."""
        deadline = time.monotonic() + timeout_s
        for waiting in (self.pending, self.told):
            for message in waiting:
                if wanted(message):
                    waiting.remove(message)
                    check_schema(message.topic, message.payload)
                    return message
        while True:
            try:
                message = self.side.take(max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                assert self.device.process.poll() is None, self.device.log.read_text()
                heard = [(item.topic, item.payload[:300]) for item in self.pending]
                raise AssertionError(f"it was not heard within {timeout_s:g} s; there are {heard}") from None
            if message.topic.startswith(f"{BASE}/in/") and isinstance(self.side, MosquittoSide):
                continue  # our own
            if wanted(message):
                check_schema(message.topic, message.payload)
                return message
            (self.told if is_told(message.topic) else self.pending).append(message)

    def wait_idle(self) -> None:
        """Until the device has nothing to do: all that it has to say was heard before this returns.

        It is ready, and has answered a job that came after: the last words of those before are out then.
        """
        deadline, patience_s = time.monotonic() + WAIT_S, PONG_S
        state = ""
        while state != "ready":
            if time.monotonic() > deadline:
                log = self.device.log.read_text()[-2000:]
                raise AssertionError(f"the device is {state or 'silent'}: {log}")
            state = self._asked("ping", {}, patience_s).get("state", "")
            if not state:
                patience_s *= 2
            elif state != "ready":
                time.sleep(0.01)
        while not self._asked("generate", {"prompt": "say 0"}, patience_s):
            patience_s *= 2
            assert time.monotonic() < deadline, "the device answers no more"
        self.pending = [message for message in self.pending if "/out/fence/" not in message.topic]

    def _asked(self, op: str, fields: dict[str, Any], patience_s: float) -> dict[str, Any]:
        """The answer of a device that may not hear us yet; empty where none comes for so long."""
        self.side.wait_subscribed()
        self._asked_before += 1
        topic = f"{BASE}/out/fence/{self._asked_before}"
        payload = json.dumps({**fields, "reply_to": topic}).encode()
        self.send(Message(topic=f"{BASE}/in/fence/{op}", payload=payload))
        try:
            return dict(json.loads(self.take(lambda message: message.topic == topic, patience_s).payload))
        except AssertionError:
            return {}

    def counters(self) -> dict[str, int]:
        """What the device has counted up to now."""
        self.wait_idle()
        self.told.clear()
        body = self.take(lambda message: message.topic == f"{BASE}/metrics").payload
        return dict(json.loads(body)["counters"])

    def begin(self) -> None:
        """Forget what was said before."""
        self.wait_idle()
        self.pending.clear()
        self.told.clear()

    def close(self) -> None:
        self.device.kill()
        self.side.close()


def is_told(topic: str) -> bool:
    """Whether this is where the device says of itself how it is."""
    return topic.startswith(f"{BASE}/") and not topic.startswith((f"{BASE}/out/", f"{BASE}/in/"))


def _toml(keys: dict[str, Any]) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in keys.items())
