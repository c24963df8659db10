"""One connection to a broker: in MQTT 5, or in 3.1.1 where that is all it speaks; broken, it says so to who waits."""

import queue
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgebit.errors import BrokerError, EdgebitError, NoAnswerError
from edgebit.mqtt_client.broker_url import BrokerUrl

Protocol = Literal["auto", "5", "3.1.1"]

CONNECT_TIMEOUT_S = 10.0
MQTT5_SILENCE_S = 3.0  # as the daemon: a broker that says nothing for so long is asked in 3.1.1

NO_MATCHING_SUBSCRIBERS = 0x10  # a broker's word in a PUBACK

_CLOSED, _SILENT = "the broker closed the connection", "no answer"
_MQTT5_UNKNOWN = ("Unsupported protocol version", _CLOSED, _SILENT)  # what a broker without MQTT 5 may do


class NobodyListensError(NoAnswerError):
    """A message of ours reached the broker, and nobody hears its topic (MQTT 5)."""

    def __init__(self, packet_id: int) -> None:
        super().__init__("the broker has nobody who listens to it, whatever the device's availability says. Ask again")
        self.packet_id = packet_id


class MessageRefusedError(BrokerError):
    """The broker did not take a message of ours (MQTT 5)."""

    def __init__(self, words: str, packet_id: int) -> None:
        super().__init__(words)
        self.packet_id = packet_id


class BrokerConnection:
    """Messages out, and in to one thread that waits for them."""

    def __init__(
        self, broker: BrokerUrl, *, principal: str, protocol: Protocol, ca: str | None, timeout_s: float
    ) -> None:
        """Connects. protocol "auto" is 5, and 3.1.1 where the broker refuses it or says nothing. Raises BrokerError.

        timeout_s: how long the broker may take in all; more than CONNECT_TIMEOUT_S it never has.
        """
        if ca and not broker.tls:
            raise BrokerError(f"--ca goes with an encrypted connection. Write mqtts://{broker.host}")
        self.broker = broker
        self._principal = principal
        self._sent_to = ""  # the topic of the newest message
        self._ca = ca
        self._patience_s = min(CONNECT_TIMEOUT_S, timeout_s)
        deadline = time.monotonic() + self._patience_s
        first_s = min(MQTT5_SILENCE_S, self._patience_s / 2) if protocol == "auto" else self._patience_s
        refusal = self._connect(protocol != "3.1.1", deadline, first_s)
        if protocol == "auto" and refusal in _MQTT5_UNKNOWN:
            self.close()
            refusal = self._connect(False, deadline, self._patience_s)
        if refusal:
            self.close()
            raise BrokerError(self._refused(refusal))

    def close(self) -> None:
        """Disconnect; closing twice is allowed."""
        self._closing = True
        self._client.disconnect()
        self._client.loop_stop()

    def interrupt(self) -> None:
        """Let what waits here raise KeyboardInterrupt; for a signal's handler, from which a queue may be filled."""
        stop = KeyboardInterrupt()
        self._heard.put(stop)
        self._granted.put(stop)

    def publish(self, topic: str, payload: bytes, properties: Properties | None = None) -> paho.MQTTMessageInfo:
        """Send a message with QoS 1."""
        self._sent_to = topic
        return self._client.publish(topic, payload, qos=1, properties=properties)

    def subscribe(self, *wanted: str) -> None:
        """Hear these topics too. Raises BrokerError where the broker does not allow it."""
        self._client.subscribe([(topic, 1) for topic in wanted])
        try:
            refusal = self._granted.get(timeout=self._patience_s)
        except queue.Empty:
            raise BrokerError(f"{self.broker} does not answer any more. Ask again") from None
        if isinstance(refusal, BaseException):
            raise refusal
        if refusal:
            raise BrokerError(f"{self.broker} does not let {self._principal} read {' and '.join(wanted)}: {refusal}")

    def unsubscribe(self, topic: str) -> None:
        """Hear a topic no longer."""
        self._client.unsubscribe(topic)

    def divert(self, told: Callable[[paho.MQTTMessage], None]) -> None:
        """From now on messages go to `told`, in the network's thread, and none is taken."""
        self._client.on_message = lambda client, userdata, message: told(message)

    def hear(self, deadline: float) -> Iterator[paho.MQTTMessage]:
        """Messages as they come, until the deadline."""
        while (message := self.take(deadline)) is not None:
            yield message

    def take(self, deadline: float) -> paho.MQTTMessage | None:
        """The next message; None at the deadline.

        Raises BrokerError when the connection ends, MessageRefusedError where the broker does not take a message of
        ours, NobodyListensError where one is heard by nobody.
        """
        try:
            message = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if isinstance(message, BaseException):
            raise message
        return message

    def put_back(self, messages: Iterable[paho.MQTTMessage]) -> None:
        """Let messages be taken again."""
        for message in messages:
            self._heard.put(message)

    def _refused(self, refusal: str) -> str:
        if refusal == _SILENT:
            return (
                f"{self.broker} took the connection and said nothing for {self._patience_s:g} s. "
                "Is it an MQTT broker, and not overloaded?"
            )
        if refusal == _CLOSED:
            return f"{self.broker} closed the connection without a word. Is it an MQTT broker, and is mqtt:// right?"
        return f"{self.broker} refused us: {refusal}{_mend(refusal)}"

    def _connect(self, mqtt5: bool, deadline: float, answer_s: float) -> str:
        """Connect; gives the broker's refusal, or "". Raises BrokerError where there is no broker.

        `answer_s` is the time for the broker's answer once the connection stands; the deadline holds for both.
        """
        self.mqtt5 = mqtt5
        self._closing = False
        self._heard: queue.SimpleQueue[paho.MQTTMessage | EdgebitError | KeyboardInterrupt] = queue.SimpleQueue()
        self._connected: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._granted: queue.SimpleQueue[str | KeyboardInterrupt] = queue.SimpleQueue()
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = max(0.1, deadline - time.monotonic())
        if self.broker.user is not None:
            client.username_pw_set(self.broker.user, self.broker.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = lambda client, userdata, sock: sock.setsockopt(  # type: ignore[attr-defined]
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        client.on_message = lambda client, userdata, message: self._heard.put(message)
        client.on_publish = self._on_publish
        try:
            if self.broker.tls:
                client.tls_set_context(_tls_context(self._ca))
            client.connect(self.broker.host, self.broker.port, keepalive=30)
        except (OSError, ValueError) as error:
            raise BrokerError(
                f"{self.broker} cannot be reached: {error}. Is it running, and the address right?"
            ) from error
        client.loop_start()
        try:
            return self._connected.get(timeout=max(0.1, min(answer_s, deadline - time.monotonic())))
        except queue.Empty:
            return _SILENT

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._connected.put(reason.getName() if reason.is_failure else "")

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._connected.put(_CLOSED)
        if not self._closing:
            self._heard.put(BrokerError(f"the connection to {self.broker} was lost: {reason.getName()}. Ask again"))

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.value == NO_MATCHING_SUBSCRIBERS:
            self._heard.put(NobodyListensError(mid))
        elif reason.is_failure:
            may_not = f"{self._principal} may not publish to {self._sent_to}"
            words = f"{self.broker} refused the request: {may_not} ({reason.getName()})"
            self._heard.put(MessageRefusedError(f"{words}: --principal, or the broker's access list", mid))

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        self._granted.put(next((reason.getName() for reason in reasons if reason.is_failure), ""))


def _tls_context(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise BrokerError(f"--ca {ca}: no certificate can be read there: {error}. Give a PEM file") from error


def _mend(refusal: str) -> str:
    if refusal in ("Not authorized", "Bad user name or password"):
        return (
            ". Give the user in the address, mqtt://USER@HOST, and the password in --password-file or "
            "EDGEBIT_MQTT_PASSWORD"
        )
    return ""
