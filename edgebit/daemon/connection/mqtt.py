"""The connection to the broker: paho-mqtt 2 with its traps closed.

Own reconnect loop with jitter; subscribed anew on every connection and the grant checked; `online` is said only after
that; the will carries the connection's number; a broker's refusal is read as one; callbacks only hand over.
"""

import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgebit.daemon.config.reader import read_password
from edgebit.daemon.config.sections import Config
from edgebit.daemon.connection.acknowledgements import Deliveries, Receipts
from edgebit.daemon.connection.backoff import Backoff
from edgebit.daemon.connection.role import Role
from edgebit.daemon.connection.tls import explain, tls_context
from edgebit.daemon.contract.frames import Outgoing, encode_json
from edgebit.daemon.contract.messages import Incoming

log = logging.getLogger("edgebit.mqtt")

CONNECT_TIMEOUT_S = 10.0
HANDSHAKE_TIMEOUT_S = 15.0  # from the TCP connection to the granted subscription
PROBE_TIMEOUT_S = 3.0  # the same, while it is not known whether the broker speaks MQTT 5
INFLIGHT_MAX = 20
RECEIVE_MAX = 16
PACKET_OVERHEAD = 64  # fixed header, lengths and packet id, beside topic, payload and properties

# What a broker says that another attempt a second later will not change, by name (numbers differ between versions).
LASTING_REFUSALS = frozenset(
    {
        "Bad authentication method",
        "Bad user name or password",
        "Banned",
        "Client identifier not valid",
        "Not authorized",
        "QoS not supported",
        "Retain not supported",
        "Session taken over",
        "Topic name invalid",
        "Unsupported protocol version",
        "subscription refused",
    }
)

# How paho names a connection that the broker closed instead of answering CONNECT.
CLOSED_AT_ONCE = frozenset({"Unspecified error", "The connection was lost.", "Keep alive timeout"})
SILENT = "the broker did not answer in time"
RECEIVE_MAX_LEARNED = "the broker's Receive Maximum is smaller than ours"

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Connected:
    """The device can be asked: connected, subscribed, and `online` is on its way."""

    number: int
    mqtt5: bool
    session_present: bool
    packet_max: int  # bytes; 0: the broker named no limit


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or an attempt failed."""

    reason: str
    was_connected: bool


MqttEvent = Incoming | Connected | Disconnected


@dataclass(slots=True)
class _Attempt:
    """One connection from its first packet to its end."""

    number: int
    mqtt5: bool
    began: float
    answered: bool = False  # the broker sent a CONNACK
    session_present: bool = False
    asked: tuple[str, ...] = ()  # filters of requests that the broker was asked for last
    heard: tuple[str, ...] = ()  # that it has granted
    subscription: int | None = None  # packet id of what it was asked last
    ready_at: float = 0.0
    reason: str = ""


def _guarded(
    callback: Callable[Concatenate["Connection", P], None],
) -> Callable[Concatenate["Connection", P], None]:
    """An exception in a callback would end paho's loop: it is logged instead."""
    name = getattr(callback, "__name__", "callback")

    def guarded(self: "Connection", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(self, *args, **kwargs)
        except Exception:
            log.exception("%s failed", name)
            self.counters["callback_failed"] += 1

    return guarded


class Connection:
    """Keeps the device connected while run() runs in a thread of its own; publish() from any thread.

    `deliver` takes every event, called in the network thread; it may block, which holds the broker back.
    """

    def __init__(
        self,
        config: Config,
        role: Role,
        next_number: Callable[[], int],
        deliver: Callable[[MqttEvent], None],
        *,
        backoff: Backoff | None = None,
    ) -> None:
        """`next_number` gives each attempt its own.

        Raises ConfigError where certificates or the password file cannot be read.
        """
        self._role = role
        self._wanted = role.subscriptions
        self._config = config.mqtt
        self._limits = config.limits
        self._topics = config.topics
        self._next_number = next_number
        self._deliver = deliver
        self._backoff = backoff or Backoff()
        self._tls = tls_context(config.mqtt)
        self._password = read_password(config.mqtt)
        self._mqtt5 = config.mqtt.protocol != "3.1.1"
        self._protocol_fixed = config.mqtt.protocol != "auto"
        self._inflight_max = INFLIGHT_MAX
        self._closed_unanswered = 0
        self._stop = threading.Event()
        self._receipts = Receipts()
        self._deliveries = Deliveries()
        self._subscribing = threading.Lock()
        self._attempt = _Attempt(0, self._mqtt5, 0.0)
        self._client = self._new_client()
        self._packet_max = 0
        self.alive_at = time.monotonic()  # the network thread's last sign of life
        self.counters: Counter[str] = Counter()
        self.last_error: str | None = None

    @property
    def packet_max(self) -> int:
        """The largest packet the broker takes, in bytes; 0: any."""
        return self._packet_max

    @property
    def connected(self) -> bool:
        """Whether the device can be asked now."""
        return self._attempt.ready_at > 0 and self._client.is_connected()

    @property
    def mqtt5(self) -> bool:
        """Whether the present connection, or the last one, speaks MQTT 5."""
        return self._attempt.mqtt5

    @property
    def number(self) -> int:
        """The number of the present connection, or of the last one."""
        return self._attempt.number

    @property
    def heard(self) -> tuple[str, ...]:
        """The filters of requests that are heard now."""
        return self._attempt.heard if self.connected else ()

    def subscribe_to(self, *filters: str) -> None:
        """Hear requests on these and no others, now and at every connection. To be called as long as heard differs."""
        self._wanted = filters
        attempt = self._attempt
        if not self.connected or attempt.asked == filters:
            return
        gone = [topic for topic in attempt.asked if topic not in filters]
        with self._subscribing:
            attempt.asked, attempt.heard = filters, ()
            if gone:
                self._client.unsubscribe(gone)
            if filters:
                _, attempt.subscription = self._subscribe(*filters)

    def publish(self, message: Outgoing) -> bool:
        """Send a message, or keep it until the broker is back (QoS 1). False where it was dropped, which is counted."""
        return self._publish(message) is not None

    def run(self) -> None:
        """Connect, and connect again, until close()."""
        while not self._stop.is_set():
            attempt = self._connect()
            if self._stop.is_set():
                break
            connected_s = time.monotonic() - attempt.ready_at if attempt.ready_at else 0.0
            self.counters["connection_ended"] += 1
            self.last_error = f"mqtt: {attempt.reason}"
            if self._learned(attempt):
                self._replace_client()
                self._wait(0.1)
                continue
            delay_s = self._backoff.delay_s(connected_s=connected_s, refused=attempt.reason in LASTING_REFUSALS)
            log.warning("no connection to %s: %s; next attempt in %.1f s", self._config.url, attempt.reason, delay_s)
            self._deliver(Disconnected(attempt.reason, attempt.ready_at > 0))
            self._wait(delay_s)

    def close(self, timeout_s: float = 3.0) -> None:
        """Say `offline` after everything published before, disconnect cleanly, and let run() return."""
        offline = self._availability("offline")
        if self.connected and offline is not None:
            info = self._publish(offline)
            if info is not None:
                try:
                    info.wait_for_publish(timeout_s)
                except (RuntimeError, ValueError) as error:
                    log.warning("could not say offline: %s", error)
        self._stop.set()
        self._client.disconnect()

    def _connect(self) -> _Attempt:
        client = self._client
        attempt = self._attempt = _Attempt(self._next_number(), self._mqtt5, time.monotonic())
        self._forget_unfinished()
        will = self._availability("lost")
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        try:
            if attempt.mqtt5:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                properties.SessionExpiryInterval = self._role.session_expiry_s
                properties.ReceiveMaximum = RECEIVE_MAX
                properties.MaximumPacketSize = self._limits.max_packet_bytes
                client.connect(
                    self._config.host,
                    self._config.port,
                    self._config.keepalive_s,
                    clean_start=self._role.session_expiry_s == 0,
                    properties=properties,
                )
            else:
                client.connect(self._config.host, self._config.port, self._config.keepalive_s)
            self._drive(client, attempt)
        except (OSError, ValueError) as error:
            attempt.reason = attempt.reason or explain(f"{type(error).__name__}: {error}")
        except Exception as error:
            log.exception("the network loop failed")
            attempt.reason = f"{type(error).__name__}: {error}"
        return attempt

    def _drive(self, client: paho.Client, attempt: _Attempt) -> None:
        # A broker that does not know MQTT 5 may wait for ever for the rest of a packet that it misreads.
        probing = attempt.mqtt5 and not self._protocol_fixed
        timeout_s = PROBE_TIMEOUT_S if probing else HANDSHAKE_TIMEOUT_S
        while True:
            self.alive_at = time.monotonic()
            code = client.loop(timeout=1.0)
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                attempt.reason = attempt.reason or paho.error_string(code)
                return
            if not attempt.ready_at and time.monotonic() - attempt.began > timeout_s:
                attempt.reason = attempt.reason or SILENT
                client.disconnect()
                client.loop_write()
                return

    def _learned(self, attempt: _Attempt) -> bool:
        """Whether the broker showed how it wants to be talked to, so that another attempt at once makes sense."""
        if attempt.reason == RECEIVE_MAX_LEARNED:
            return True
        if attempt.ready_at and attempt.mqtt5:
            self._protocol_fixed = True
        closed = not attempt.answered and attempt.reason in CLOSED_AT_ONCE
        self._closed_unanswered = self._closed_unanswered + 1 if closed else 0
        silent = not attempt.answered and attempt.reason == SILENT
        unspoken = attempt.reason == "Unsupported protocol version" or silent or self._closed_unanswered >= 2
        if self._protocol_fixed or not unspoken:
            return False
        self._mqtt5 = not self._mqtt5
        self._closed_unanswered = 0
        if self._mqtt5:  # both were tried
            self._replace_client()
            return False
        log.info("the broker does not speak MQTT 5: trying 3.1.1")
        return True

    def _replace_client(self) -> None:
        """Another protocol or limit needs another client; what the broker has not confirmed goes over to it."""
        self._client, self._attempt.mqtt5 = self._new_client(), self._mqtt5
        for message in self._deliveries.take_all():
            if not message.retain:  # states are said anew at every connection
                self._publish(message)

    def _wait(self, delay_s: float) -> None:
        until = time.monotonic() + delay_s
        while (left := until - time.monotonic()) > 0 and not self._stop.wait(min(left, 1.0)):
            self.alive_at = time.monotonic()

    def _new_client(self) -> paho.Client:
        # A 3.1.1 session never expires, and requests in it carry no expiry: without one, stale ones are not run.
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._role.client_id,
            clean_session=None if self._mqtt5 else True,
            manual_ack=True,
            protocol=MQTTProtocolVersion.MQTTv5 if self._mqtt5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(self._inflight_max)
        client.max_queued_messages_set(self._config.queued_messages_max)
        if self._config.user:
            client.username_pw_set(self._config.user, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        if self._tls is not None:
            client.on_log = self._on_log
        client.on_socket_open = self._on_socket_open
        # With a callback here, publish() from another thread never writes to the socket itself: it wakes our loop.
        client.on_socket_register_write = lambda *_: None
        return client

    @_guarded
    def _on_log(self, client: paho.Client, userdata: Any, level: int, text: str) -> None:
        """Why the broker ended the connection under TLS is told by OpenSSL alone, in an error that paho only logs."""
        if level == paho.MQTT_LOG_ERR and "SSL" in text:
            self._attempt.reason = self._attempt.reason or explain(text)

    @_guarded
    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        """Small packets go out at once: otherwise a frame waits for the last one's TCP acknowledgement, up to 40 ms."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @_guarded
    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        attempt = self._attempt
        attempt.answered = True
        if reason.is_failure:
            attempt.reason = reason.getName()
            return
        attempt.session_present = flags.session_present
        self._packet_max = int(getattr(properties, "MaximumPacketSize", 0))
        receive_max = int(getattr(properties, "ReceiveMaximum", INFLIGHT_MAX))
        if receive_max < self._inflight_max:  # paho does not look at it, and takes its own limit only before connecting
            self._inflight_max = receive_max
            attempt.reason = RECEIVE_MAX_LEARNED
            client.disconnect()
            return
        attempt.asked = self._wanted
        if not attempt.asked:
            self._ready(attempt)
            return
        code, attempt.subscription = self._subscribe(*attempt.asked)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            attempt.reason = f"subscribing failed: {paho.error_string(code)}"
            client.disconnect()
        for topic in self._role.listen:
            self._subscribe(topic)

    def _subscribe(self, *filters: str) -> tuple[MQTTErrorCode, int | None]:
        if not self._attempt.mqtt5:
            return self._client.subscribe([(topic, 1) for topic in filters])
        # The retain flag stays on, so that a retained request can be told and refused; stored ones do not come.
        options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        return self._client.subscribe([(topic, options) for topic in filters])

    @_guarded
    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        attempt = self._attempt
        with self._subscribing:  # another thread may be about to note the packet id
            is_ours = mid == attempt.subscription
        refusals = [reason.getName() for reason in reasons if reason.is_failure]
        if not is_ours:
            for said in refusals:
                log.warning("the broker refused to let us hear one of %s: %s", self._role.listen, said)
            return
        if refusals or not reasons:
            log.error("the broker refused the subscription to %s: %s", ", ".join(attempt.asked), ", ".join(refusals))
            attempt.reason = "subscription refused"
            client.disconnect()
            return
        attempt.heard = attempt.asked
        if not attempt.ready_at:
            self._ready(attempt)

    def _ready(self, attempt: _Attempt) -> None:
        attempt.ready_at = time.monotonic()
        self.last_error = None
        online = self._availability("online")
        if online is not None:
            self.publish(online)
        log.info("connected to %s as %s, connection %d", self._config.url, self._role.client_id, attempt.number)
        self._deliver(Connected(attempt.number, attempt.mqtt5, attempt.session_present, self._packet_max))

    @_guarded
    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.counters["bad_topic"] += 1
            self._receipt(client, message)()
            return
        properties = message.properties
        expiry = getattr(properties, "MessageExpiryInterval", None)
        self._deliver(
            Incoming(
                topic=topic,
                payload=bytes(message.payload),
                received=time.monotonic(),
                retain=bool(message.retain),
                dup=bool(message.dup),
                mqtt5=self._attempt.mqtt5,
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
                expiry_s=None if expiry is None else int(expiry),
                content_type=getattr(properties, "ContentType", None),
                user=tuple(getattr(properties, "UserProperty", ())),
                connection=self._attempt.number,
                packet_id=message.mid,
                ack=self._receipt(client, message),
            )
        )

    def _receipt(self, client: paho.Client, message: paho.MQTTMessage) -> Callable[[], None]:
        if message.qos == 0:
            return _nothing
        packet_id, qos = message.mid, message.qos
        return self._receipts.received(lambda: client.ack(packet_id, qos))

    @_guarded
    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            log.error("the broker refused a message of ours: %s", reason.getName())
            self.counters["publish_refused"] += 1
        self._deliveries.confirmed(mid)

    def _forget_unfinished(self) -> None:
        self._receipts.forget()
        self._deliveries.connection_ended()

    @_guarded
    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._forget_unfinished()
        if not self._attempt.reason:
            self._attempt.reason = reason.getName()

    def _availability(self, state: str) -> Outgoing | None:
        if self._role.availability is None:
            return None
        body = encode_json({"state": state, "conn": self._attempt.number})
        return Outgoing(topic=self._role.availability, payload=body, retain=True)

    def _publish(self, message: Outgoing) -> paho.MQTTMessageInfo | None:
        properties, size = None, PACKET_OVERHEAD + len(message.topic.encode()) + len(message.payload)
        if self._attempt.mqtt5:
            properties = _publish_properties(message)
            size += len(properties.pack())  # type: ignore[no-untyped-call]
        if self._packet_max and size > self._packet_max:
            topic = self._topics.nameless(message.topic)
            log.error("a message of %d bytes to %s is above the broker's %d", size, topic, self._packet_max)
            self.counters["dropped_too_large"] += 1
            return None
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain, properties)
        kept = info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and message.qos > 0
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS and not kept:
            self.counters["dropped"] += 1
            return None
        self.counters["published"] += 1
        self._deliveries.sent(info.mid, message)
        return info


def _nothing() -> None:
    """Acknowledges QoS 0."""


def _publish_properties(message: Outgoing) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    properties.ContentType = message.content_type
    properties.PayloadFormatIndicator = 1
    if message.user:
        properties.UserProperty = list(message.user)
    return properties
