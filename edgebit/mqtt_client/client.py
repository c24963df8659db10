"""Asking devices through a broker."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

from edgebit.daemon.contract.topics import DEFAULT_ROOT, DeviceTopics, is_device, is_principal, is_root, segment_of
from edgebit.errors import BrokerError, NoAnswerError
from edgebit.mqtt_client.answers import Assembler, Exchange, conclude
from edgebit.mqtt_client.broker_url import BrokerUrl, default_principal
from edgebit.mqtt_client.connection import CONNECT_TIMEOUT_S, BrokerConnection, Protocol
from edgebit.mqtt_client.device_states import (
    RETAINED_WAIT_S,
    DeviceState,
    absence,
    availability_state,
    read_availability,
    read_devices,
    read_info,
)
from edgebit.mqtt_client.json_payload import parse_json
from edgebit.mqtt_client.request import Call, fields_for_properties, new_id, request_properties
from edgebit.mqtt_client.signing import Addressee, Signer

LATE_S = 1.0  # after the deadline, for the device's own word that it has passed
CANCEL_WAIT_S = 3.0
GAP_WAIT_S = 2.0  # how long a missing frame may still come after the last one
_KEPT = ("generate", "chat", "assist")  # what a device writes down, and answers once it is back


class DeviceClient:
    """A connection to the broker from which devices are asked, one question at a time. A context manager."""

    def __init__(
        self,
        broker: BrokerUrl,
        *,
        principal: str | None = None,
        protocol: Protocol = "auto",
        root: str = DEFAULT_ROOT,
        ca: str | None = None,
        timeout_s: float = CONNECT_TIMEOUT_S,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Connects, as BrokerConnection does. Raises BrokerError.

        sign: makes an Ed25519 signature, for devices that take signed requests only
        """
        self.principal = principal or default_principal(broker)
        if not is_principal(self.principal):
            raise BrokerError(
                f"principal {self.principal!r} is not 1 to 64 letters, digits, '_', '.', '@' and '-'. Give --principal"
            )
        if not is_root(root):
            raise BrokerError(f"root {root!r} is not made of levels of a-z 0-9 _ . -")
        self.root = root
        self._signer = None if sign is None else Signer(self.principal, sign)
        self.connection = BrokerConnection(
            broker, principal=self.principal, protocol=protocol, ca=ca, timeout_s=timeout_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect; closing twice is allowed."""
        self.connection.close()

    def interrupt(self) -> None:
        """Let what waits here raise KeyboardInterrupt; for a signal's handler."""
        self.connection.interrupt()

    def devices(self, wait_s: float = RETAINED_WAIT_S) -> list[DeviceState]:
        """Every device the broker knows of, by name. Waits `wait_s` for what is retained; leaves other messages be."""
        return read_devices(self.connection, self.root, wait_s)

    def info(self, device: str) -> dict[str, Any]:
        """What the broker has retained of a device's abilities; empty where there is nothing."""
        return read_info(self.connection, DeviceTopics(self.root, device))

    def watch(
        self, devices: Sequence[str], kinds: Sequence[str], told: Callable[[str, str, bytes, bool], None]
    ) -> None:
        """Hear these kinds of messages of devices, or of all where none is named. Nothing is asked on this connection.

        `told` gets device, kind, payload, and whether it was retained, in the network's thread; wait() says when it is
        over.
        """

        def hear(message: paho.MQTTMessage) -> None:
            *_, name, kind = message.topic.split("/")
            told(name, kind, bytes(message.payload), message.retain)

        self.connection.divert(hear)
        bases = [DeviceTopics(self.root, name).base for name in devices or ("+",)]
        self.connection.subscribe(*(f"{base}/{kind}" for base in bases for kind in kinds))

    def wait(self, seconds: float) -> None:
        """Let time pass. Raises BrokerError when the connection ends."""
        self.connection.take(time.monotonic() + seconds)

    def stream(
        self, device: str, op: str, fields: Mapping[str, Any], exchange: Exchange, *, timeout_s: float
    ) -> Iterator[str]:
        """Send a request and yield the answer's text as it comes; `exchange` is filled in at the end.

        Without `"stream": true` in the fields nothing is yielded. Raises NoAnswerError where the device is not there,
        goes away, or is silent until the time is over; DeviceError where it answers with an error, or the answer is
        not what its hash says.
        """
        exchange.device = device
        call = self.call(device, op, fields, exchange.id, timeout_s=timeout_s)
        assembler = Assembler()
        while not assembler.complete and (frame := self.hear(call)) is not None:
            if piece := assembler.push(frame):
                yield piece
            if frame.get("done"):  # whatever came before it and is missing has little time left
                call.deadline = min(call.deadline, time.monotonic() + GAP_WAIT_S)
        self.connection.unsubscribe(call.place)
        conclude(device, assembler, exchange, timeout_s)

    def ask(self, device: str, op: str, fields: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send a request and give its one reply, such as that of a ping. Raises as stream() does."""
        exchange = Exchange(new_id())
        for _ in self.stream(device, op, fields, exchange, timeout_s=timeout_s):
            pass
        return exchange.reply

    def call(
        self,
        device: str,
        op: str,
        fields: Mapping[str, Any],
        job_id: str,
        *,
        timeout_s: float,
        place: str | None = None,
    ) -> Call:
        """Send a request to a device that is there; the answers come to `place`, or where the job's own go.

        Raises NoAnswerError where the device is not there.
        """
        if not is_device(device):
            raise NoAnswerError(
                f"{device!r} is no device's name, which is 1 to 64 of a-z 0-9 _ . - (try {segment_of(device)!r})"
            )
        topics = DeviceTopics(self.root, device)
        call = Call(
            topics,
            place or topics.reply(self.principal, job_id),
            time.monotonic() + timeout_s + LATE_S,
            job_id if op in _KEPT else "",
        )
        self.connection.subscribe(call.place, topics.availability)
        state = read_availability(self.connection, topics)
        if state != "online":
            raise NoAnswerError(absence(self.connection, topics, state))
        if self._signer is not None:
            self._signer.learn(topics, self.info(device))
        self.send(topics, op, call.place, fields, job_id, timeout_s)
        return call

    def hear(self, call: Call) -> dict[str, Any] | None:
        """The next frame that comes to a call's place; None when its time is over.

        Raises NoAnswerError where the device goes away.
        """
        for message in self.connection.hear(call.deadline):
            if message.topic == call.topics.availability:
                state = availability_state(message.payload)
                if state != "online":
                    raise NoAnswerError(_gone(call, state))
            elif message.topic == call.place and isinstance(frame := parse_json(message.payload), dict):
                return frame
        return None

    def reply_topic(self, device: str, name: str) -> str:
        """A place for answers of ours."""
        return DeviceTopics(self.root, device).reply(self.principal, name)

    def cancel(self, device: str, job_id: str) -> None:
        """End one of our own jobs; its answer says so. Returns once the broker has the message."""
        topics = DeviceTopics(self.root, device)
        payload = self._sealed(topics, "cancel", job_id, json.dumps({"id": job_id}))
        info = self.connection.publish(topics.request(self.principal, "cancel"), payload)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            info.wait_for_publish(CANCEL_WAIT_S)

    def send(
        self,
        topics: Addressee,
        op: str,
        reply_topic: str | None,
        fields: Mapping[str, Any],
        job_id: str,
        timeout_s: float,
    ) -> int:
        """Send a request; gives its packet id. Without a reply topic the device answers on its own for the job."""
        mqtt5 = self.connection.mqtt5
        body = {**fields, "id": job_id}
        if not mqtt5 or self._signer is not None:  # properties are not signed, so what they say is said inside too
            body |= fields_for_properties(reply_topic, timeout_s)
        payload = self._sealed(topics, op, job_id, json.dumps(body, ensure_ascii=False))
        properties = request_properties(job_id, reply_topic, timeout_s) if mqtt5 else None
        info = self.connection.publish(topics.request(self.principal, op), payload, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise BrokerError(f"the connection to {self.connection.broker} was lost. Ask again")
        return info.mid

    def _sealed(self, topics: Addressee, op: str, job_id: str, payload: str) -> bytes:
        sealed = payload if self._signer is None else self._signer.seal(topics, op, job_id, payload)
        return sealed.encode()


def _gone(call: Call, state: str) -> str:
    """Why there is no answer of a device that went `state`, and whether it may come all the same."""
    device = call.topics.device
    words = f"{device} went {state} before it had answered. Ask again"
    if call.kept_as and state == "lost":
        words += f", or see whether it answered once it is back: edgebit ask --device {device} --get {call.kept_as}"
    return words
