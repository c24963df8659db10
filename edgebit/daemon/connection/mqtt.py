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
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgebit.daemon.config.reader import read_password
from edgebit.daemon.config.sections import Config
from edgebit.daemon.connection.acknowledgements import Receipts
from edgebit.daemon.connection.attempt import LASTING_REFUSALS, RECEIVE_MAX_LEARNED, SILENT, Attempt
from edgebit.daemon.connection.backoff import Backoff
from edgebit.daemon.connection.events import Connected, Disconnected, MqttEvent
from edgebit.daemon.connection.guarded import guarded
from edgebit.daemon.connection.packets import connect_properties, read_message
from edgebit.daemon.connection.paho_client import new_client
from edgebit.daemon.connection.protocol_choice import ProtocolChoice
from edgebit.daemon.connection.rivalry import Rivalry
from edgebit.daemon.connection.role import Role
from edgebit.daemon.connection.sender import Sender
from edgebit.daemon.connection.subscriptions import Subscriptions
from edgebit.daemon.connection.tls import explain, tls_context
from edgebit.daemon.contract.frames import Outgoing

log = logging.getLogger("edgebit.mqtt")

HANDSHAKE_TIMEOUT_S = 15.0  # from the TCP connection to the granted subscription
PROBE_TIMEOUT_S = 3.0  # the same, while it is not known whether the broker speaks MQTT 5
INFLIGHT_MAX = 20
CLOSE_S = 3.0  # for the last word to reach the broker


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
        self._next_number = next_number
        self._deliver = deliver
        self._backoff = backoff or Backoff()
        self._tls = tls_context(config.mqtt)
        self._password = read_password(config.mqtt)
        self._protocol = ProtocolChoice(config.mqtt.protocol)
        self._inflight_max = INFLIGHT_MAX
        self._stop = threading.Event()
        self._receipts = Receipts()
        self.counters: Counter[str] = Counter()
        self._client = self._new_client()
        self._sender = Sender(self._client, self.mqtt5, config.topics, self.counters, config.mqtt.queued_messages_max)
        self._attempt = Attempt(0, 0.0, Subscriptions(self._client, self.mqtt5))
        self.alive_at = time.monotonic()  # the network thread's last sign of life
        self._rivalry = Rivalry(role.client_id)

    @property
    def packet_max(self) -> int:
        """The largest packet the broker takes, in bytes; 0: any."""
        return self._sender.packet_max

    @property
    def room(self) -> int:
        """How many more messages can wait for the broker."""
        return self._sender.room

    @property
    def connected(self) -> bool:
        """Whether the device can be asked now."""
        return self._attempt.ready_at > 0 and self._client.is_connected()

    @property
    def mqtt5(self) -> bool:
        """Whether the present connection, or the last one, speaks MQTT 5."""
        return self._protocol.mqtt5

    @property
    def number(self) -> int:
        """The number of the present connection, or of the last one."""
        return self._attempt.number

    @property
    def heard(self) -> tuple[str, ...]:
        """The filters of requests that are heard now."""
        return self._attempt.subscriptions.heard if self.connected else ()

    @property
    def rival(self) -> str | None:
        """That another client seems to connect under our id, in words; None where nothing speaks for it."""
        ready_at = self._attempt.ready_at if self.connected else 0.0
        return self._rivalry.words(time.monotonic() - ready_at if ready_at else 0.0)

    def subscribe_to(self, *filters: str) -> None:
        """Hear requests on these and no others, now and at every connection. To be called as long as heard differs."""
        self._wanted = filters
        subscriptions = self._attempt.subscriptions
        if self.connected and subscriptions.asked != filters:
            subscriptions.change(filters)

    def publish(self, message: Outgoing) -> bool:
        """Send a message, or keep it until the broker is back (QoS 1). False where it was dropped, which is counted."""
        return self._sender.publish(message) is not None

    def run(self) -> None:
        """Connect, and connect again, until close()."""
        while not self._stop.is_set():
            attempt = self._connect()
            if self._stop.is_set():
                break
            connected_s = time.monotonic() - attempt.ready_at if attempt.ready_at else 0.0
            self.counters["connection_ended"] += 1
            if self._adapted_to(attempt):
                self._wait(0.1)
                continue
            refused = attempt.reason in LASTING_REFUSALS
            rival = self._rivalry.ended(connected_s, attempt.reason, refused=refused)
            delay_s = self._backoff.delay_s(connected_s=connected_s, refused=refused or rival)
            log.warning("no connection to %s: %s; next attempt in %.1f s", self._config.url, attempt.reason, delay_s)
            if rival:
                log.error("%s", self.rival)
            self._deliver(Disconnected(attempt.reason, attempt.ready_at > 0))
            self._wait(delay_s)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Say `offline` after everything published before, disconnect cleanly, and let run() return."""
        offline = self._role.says("offline", self._attempt.number)
        if self.connected and offline is not None:
            info = self._sender.publish(offline)
            if info is not None:
                try:
                    info.wait_for_publish(timeout_s)
                except (RuntimeError, ValueError) as error:
                    log.warning("could not say offline: %s", error)
        self._stop.set()
        self._client.disconnect()

    def _connect(self) -> Attempt:
        client = self._client
        subscriptions = Subscriptions(client, self.mqtt5)
        attempt = self._attempt = Attempt(self._next_number(), time.monotonic(), subscriptions)
        self._forget_unfinished()
        will = self._role.says("lost", attempt.number)
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        try:
            if self.mqtt5:
                client.connect(
                    self._config.host,
                    self._config.port,
                    self._config.keepalive_s,
                    clean_start=self._role.session_expiry_s == 0,
                    properties=connect_properties(self._role.session_expiry_s, self._limits.max_packet_bytes),
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

    def _drive(self, client: paho.Client, attempt: Attempt) -> None:
        # A broker that does not know MQTT 5 may wait for ever for the rest of a packet that it misreads.
        timeout_s = PROBE_TIMEOUT_S if self._protocol.is_probing else HANDSHAKE_TIMEOUT_S
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

    def _adapted_to(self, attempt: Attempt) -> bool:
        """Whether the broker showed how it wants to be talked to, so that another attempt at once makes sense."""
        if attempt.reason == RECEIVE_MAX_LEARNED:
            self._replace_client()
            return True
        before = self.mqtt5
        self._protocol.learn(attempt)
        if self.mqtt5 == before:
            return False
        self._replace_client()
        return not self.mqtt5  # back at MQTT 5, both were tried

    def _replace_client(self) -> None:
        """Another protocol or limit needs another client."""
        self._client = self._new_client()
        self._sender.change_client(self._client, self.mqtt5)

    def _wait(self, delay_s: float) -> None:
        until = time.monotonic() + delay_s
        while (left := until - time.monotonic()) > 0 and not self._stop.wait(min(left, 1.0)):
            self.alive_at = time.monotonic()

    def _new_client(self) -> paho.Client:
        client = new_client(
            self._config,
            self._role.client_id,
            mqtt5=self.mqtt5,
            inflight_max=self._inflight_max,
            password=self._password,
            tls=self._tls,
        )
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        if self._tls is not None:
            client.on_log = self._on_log
        client.on_socket_open = self._on_socket_open
        return client

    @guarded
    def _on_log(self, client: paho.Client, userdata: Any, level: int, text: str) -> None:
        """Why the broker ended the connection under TLS is told by OpenSSL alone, in an error that paho only logs."""
        if level == paho.MQTT_LOG_ERR and "SSL" in text:
            self._attempt.reason = self._attempt.reason or explain(text)

    @guarded
    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        """Small packets go out at once: otherwise a frame waits for the last one's TCP acknowledgement, up to 40 ms."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @guarded
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
        self._sender.packet_max = int(getattr(properties, "MaximumPacketSize", 0))
        receive_max = int(getattr(properties, "ReceiveMaximum", INFLIGHT_MAX))
        if receive_max < self._inflight_max:  # paho does not look at it, and takes its own limit only before connecting
            self._inflight_max = receive_max
            attempt.reason = RECEIVE_MAX_LEARNED
            client.disconnect()
            return
        wanted = self._wanted
        if not wanted:
            self._ready(attempt)
            return
        code = attempt.subscriptions.ask(wanted)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            attempt.reason = f"subscribing failed: {paho.error_string(code)}"
            client.disconnect()
        for topic in self._role.listen:
            attempt.subscriptions.send(topic)

    @guarded
    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        attempt = self._attempt
        refusals = [reason.getName() for reason in reasons if reason.is_failure]
        if not attempt.subscriptions.is_answer(mid):
            for said in refusals:
                log.warning("the broker refused to let us hear one of %s: %s", self._role.listen, said)
            return
        if refusals or not reasons:
            asked = ", ".join(attempt.subscriptions.asked)
            log.error("the broker refused the subscription to %s: %s", asked, ", ".join(refusals))
            attempt.reason = "subscription refused"
            client.disconnect()
            return
        attempt.subscriptions.granted()
        if not attempt.ready_at:
            self._ready(attempt)

    def _ready(self, attempt: Attempt) -> None:
        attempt.ready_at = time.monotonic()
        online = self._role.says("online", attempt.number)
        if online is not None:
            self.publish(online)
        log.info("connected to %s as %s, connection %d", self._config.url, self._role.client_id, attempt.number)
        self._deliver(Connected(attempt.number, self.mqtt5, attempt.session_present, self.packet_max))

    @guarded
    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        ack = self._receipt(client, message)
        try:
            incoming = read_message(message, mqtt5=self.mqtt5, connection=self._attempt.number, ack=ack)
        except UnicodeDecodeError:
            self.counters["bad_topic"] += 1
            ack()
            return
        self._deliver(incoming)

    def _receipt(self, client: paho.Client, message: paho.MQTTMessage) -> Callable[[], None]:
        if message.qos == 0:
            return lambda: None
        packet_id, qos = message.mid, message.qos
        return self._receipts.received(lambda: client.ack(packet_id, qos))

    @guarded
    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            log.error("the broker refused a message of ours: %s", reason.getName())
            self.counters["publish_refused"] += 1
        self._sender.confirmed(mid)

    def _forget_unfinished(self) -> None:
        self._receipts.forget()
        self._sender.connection_ended()

    @guarded
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
