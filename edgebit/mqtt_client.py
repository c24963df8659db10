"""Service: asking devices over MQTT (docs/mqtt.md), for `edgebit ask` and whatever else wants an answer.

The other end of edgebit/daemon, whose topics it shares. Answers are put together by their frames' numbers and compared
with the count and the hash in the last one, so that a loss is seen.
"""

import contextlib
import getpass
import hashlib
import json
import queue
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgebit.daemon.admission.signed_requests import envelope, text_to_sign
from edgebit.daemon.config.sections import PORTS
from edgebit.daemon.contract.topics import (
    DEFAULT_ROOT,
    VERSION,
    DeviceTopics,
    PoolTopics,
    is_device,
    is_principal,
    is_root,
    segment_of,
)
from edgebit.errors import BrokerError, DeviceError, EdgebitError, NoAnswerError

Protocol = Literal["auto", "5", "3.1.1"]
Addressee = DeviceTopics | PoolTopics

CONNECT_TIMEOUT_S = 10.0
MQTT5_SILENCE_S = 3.0  # as the daemon: a broker that says nothing for so long is asked in 3.1.1
RETAINED_WAIT_S = 1.0  # a broker sends what it retained at once; this is long
LATE_S = 1.0  # after the deadline, for the device's own word that it has passed
CANCEL_WAIT_S = 3.0
GAP_WAIT_S = 2.0  # how long a missing frame may still come after the last one

NO_MATCHING_SUBSCRIBERS = 0x10  # a broker's word in a PUBACK

_CLOSED, _SILENT = "the broker closed the connection", "no answer"
_MQTT5_UNKNOWN = ("Unsupported protocol version", _CLOSED, _SILENT)  # what a broker without MQTT 5 may do


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where the broker is, and who we are there."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_broker_url(url: str) -> BrokerUrl:
    """Read mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]. Raises BrokerError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BrokerError(f"{url!r} is not a broker's address: {error}") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query or port == 0:
        raise BrokerError(f"{url!r} is not a broker's address. Write mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    return BrokerUrl(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def default_principal(broker: BrokerUrl) -> str:
    """Who we are in topics: the broker's user name, which an access list can hold us to, or this machine's."""
    if broker.user is not None:
        return broker.user
    with contextlib.suppress(OSError, KeyError):
        if is_principal(name := getpass.getuser()):
            return name
    return "cli"


class Assembler:
    """Puts the frames of one answer in order, each once, and checks the whole against the last one."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[str, Any]] = {}
        self._next = 0
        self.text = ""  # of all deltas without a gap
        self.last: dict[str, Any] | None = None  # the frame with `done`

    def push(self, frame: dict[str, Any]) -> str:
        """Take a frame in whatever order it came; gives the text that can be shown now."""
        seq = frame.get("seq")
        if type(seq) is not int or seq < self._next:  # True is an int too
            return ""
        if frame.get("done"):
            self.last = frame
        else:
            self._waiting[seq] = frame
        piece = ""
        while self._next in self._waiting:
            piece += str(self._waiting.pop(self._next).get("d", ""))
            self._next += 1
        self.text += piece
        return piece

    @property
    def complete(self) -> bool:
        """Whether the last frame is there and none before it is missing."""
        return self.last is not None and self._next >= int(self.last["seq"])

    @property
    def lost(self) -> int:
        """Frames that the last one counts and that have not come."""
        return 0 if self.last is None else int(self.last["seq"]) - self._next - len(self._waiting)


class NobodyListensError(NoAnswerError):
    """A message of ours reached the broker, and nobody hears its topic (MQTT 5)."""

    def __init__(self, packet_id: int) -> None:
        super().__init__("the broker has nobody who listens to it, whatever the device's availability says. Ask again")
        self.packet_id = packet_id


@dataclass(slots=True)
class Exchange:
    """One request and what has come of it; complete once DeviceClient.stream() has ended."""

    id: str
    device: str = ""  # that answers; empty while nobody does
    reply: dict[str, Any] = field(default_factory=dict)  # the last frame
    text: str = ""
    lost: int = 0  # frames that never came; the text is whole all the same if the last frame carried it


@dataclass(slots=True)
class Call:
    """A request on its way: whom it went to, and where what comes of it is heard until when."""

    topics: DeviceTopics
    place: str
    deadline: float  # monotonic seconds


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What the broker has retained of a device."""

    name: str
    availability: str  # online, offline, lost
    info: dict[str, Any]
    status: dict[str, Any]


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
        """Connects. protocol "auto" is 5, and 3.1.1 where the broker refuses it or says nothing. Raises BrokerError.

        timeout_s: how long the broker may take in all; more than CONNECT_TIMEOUT_S it never has.
        sign: makes an Ed25519 signature, for devices that take signed requests only
        """
        self.principal = principal or default_principal(broker)
        if not is_principal(self.principal):
            raise BrokerError(
                f"principal {self.principal!r} is not 1 to 64 letters, digits, '_', '.', '@' and '-'. Give --principal"
            )
        if not is_root(root):
            raise BrokerError(f"root {root!r} is not made of levels of a-z 0-9 _ . -")
        if ca and not broker.tls:
            raise BrokerError(f"--ca goes with an encrypted connection. Write mqtts://{broker.host}")
        self._broker = broker
        self.root = root
        self._ca = ca
        self._sign = sign
        self._challenges: dict[str, str] = {}  # by a device's base topic: what it last wanted to see signed
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def devices(self, wait_s: float = RETAINED_WAIT_S) -> list[DeviceState]:
        """Every device the broker knows of, by name. Waits `wait_s` for what is retained; leaves other messages be."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        kinds = ("availability", "info", "status")
        self.subscribe(*(f"{DeviceTopics(self.root, '+').base}/{kind}" for kind in kinds))
        others = []
        for message in self._hear(time.monotonic() + wait_s):
            *_, name, kind = message.topic.split("/")
            if kind not in kinds:
                others.append(message)
            elif isinstance(body := parse_json(message.payload), dict):
                found.setdefault(name, {})[kind] = body
        for message in others:
            self._heard.put(message)
        return [
            DeviceState(name, str(parts["availability"].get("state")), parts.get("info", {}), parts.get("status", {}))
            for name, parts in sorted(found.items())
            if "availability" in parts
        ]

    def watch(
        self, devices: Sequence[str], kinds: Sequence[str], told: Callable[[str, str, bytes, bool], None]
    ) -> None:
        """Hear these kinds of messages of devices, or of all where none is named. Nothing is asked on this connection.

        `told` gets device, kind, payload, and whether it was retained, in the network's thread; wait() says when it is
        over.
        """

        def hear(client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
            *_, name, kind = message.topic.split("/")
            told(name, kind, bytes(message.payload), message.retain)

        self._client.on_message = hear
        bases = [DeviceTopics(self.root, name).base for name in devices or ("+",)]
        self.subscribe(*(f"{base}/{kind}" for base in bases for kind in kinds))

    def wait(self, seconds: float) -> None:
        """Let time pass. Raises BrokerError when the connection ends."""
        self.take(time.monotonic() + seconds)

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
        self.unsubscribe(call.place)
        self.conclude(device, assembler, exchange, timeout_s)

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
        call = Call(topics, place or topics.reply(self.principal, job_id), time.monotonic() + timeout_s + LATE_S)
        self.subscribe(call.place, topics.availability)
        state = self._availability(topics)
        if state != "online":
            raise NoAnswerError(self._absence(device, state))
        if self._sign is not None:
            self._challenges[topics.base] = self._challenge(device)
        self.send(topics, op, call.place, fields, job_id, timeout_s)
        return call

    def hear(self, call: Call) -> dict[str, Any] | None:
        """The next frame that comes to a call's place; None when its time is over.

        Raises NoAnswerError where the device goes away.
        """
        for message in self._hear(call.deadline):
            if message.topic == call.topics.availability:
                state = availability_state(message.payload)
                if state != "online":
                    raise NoAnswerError(f"{call.topics.device} went {state} before it had answered. Ask again")
            elif message.topic == call.place and isinstance(frame := parse_json(message.payload), dict):
                return frame
        return None

    def reply_topic(self, device: str, name: str) -> str:
        """A place for answers of ours."""
        return DeviceTopics(self.root, device).reply(self.principal, name)

    def info(self, device: str) -> dict[str, Any]:
        """What the broker has retained of a device's abilities; empty where there is nothing."""
        topic = DeviceTopics(self.root, device).info
        self.subscribe(topic)
        for message in self._hear(time.monotonic() + RETAINED_WAIT_S):
            if message.topic == topic and isinstance(body := parse_json(message.payload), dict):
                self.unsubscribe(topic)
                return body
        return {}

    def ask(self, device: str, op: str, fields: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send a request and give its one reply, such as that of a ping. Raises as stream() does."""
        exchange = Exchange(new_id())
        for _ in self.stream(device, op, fields, exchange, timeout_s=timeout_s):
            pass
        return exchange.reply

    def cancel(self, device: str, job_id: str) -> None:
        """End one of our own jobs; its answer says so. Returns once the broker has the message."""
        topics = DeviceTopics(self.root, device)
        payload = self._sealed(topics, "cancel", job_id, json.dumps({"id": job_id}))
        info = self._client.publish(topics.request(self.principal, "cancel"), payload, qos=1)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            info.wait_for_publish(CANCEL_WAIT_S)

    def unsubscribe(self, topic: str) -> None:
        """Hear a topic no longer."""
        self._client.unsubscribe(topic)

    def conclude(self, device: str, assembler: Assembler, exchange: Exchange, timeout_s: float) -> None:
        """Fill in `exchange` from what has come. Raises as stream() does."""
        last = assembler.last
        if last is None:
            what = "had not finished its answer" if assembler.text else "did not answer"
            raise NoAnswerError(f"{device} is online, but {what} within {timeout_s:g} s. Give it a longer --timeout")
        exchange.reply, exchange.text, exchange.lost = last, str(last.get("text", assembler.text)), assembler.lost
        error = last.get("error")
        if isinstance(error, dict) and error.get("code") == "expired":
            raise NoAnswerError(f"{device}: {error.get('message')} ({timeout_s:g} s). Give it a longer --timeout")
        if error:
            raise DeviceError(device_words(device, error))
        if assembler.lost and "text" not in last:
            raise NoAnswerError(f"{assembler.lost} frames of the answer were lost on the way. Ask again")
        digest = last.get("text_sha256")
        if digest is not None and hashlib.sha256(exchange.text.encode()).hexdigest() != digest:
            raise DeviceError(f"the answer of {device} was changed on the way: its hash differs. Ask again")

    def _availability(self, topics: DeviceTopics) -> str | None:
        for message in self._hear(time.monotonic() + RETAINED_WAIT_S):
            if message.topic == topics.availability:
                return availability_state(message.payload)
        return None

    def _absence(self, device: str, state: str | None) -> str:
        if state is not None:
            meaning = {
                "offline": "it was stopped",
                "lost": "it went away without a word: power, network, or a crash. `edgebit logs` may tell",
            }
            return f"{device} is {state}: {meaning.get(state, 'it cannot be asked now')}"
        known = [state.name for state in self.devices()]
        others = f"It knows {', '.join(known)}" if known else "It knows no device at all"
        return f"the broker {self._broker} knows no device {device!r}. {others}"

    def _challenge(self, device: str) -> str:
        """What the device wants to see signed. Raises DeviceError where it wants no signatures."""
        info = self.info(device)
        identity = info.get("identity")
        challenge = identity.get("challenge") if isinstance(identity, dict) else None
        if not isinstance(challenge, str) or not challenge.isalnum():
            mode = info.get("auth")
            raise DeviceError(f"{device} takes no signed requests, its mode is {mode!r}: leave out --sign-key")
        return challenge

    def _sealed(self, topics: Addressee, op: str, job_id: str, payload: str) -> bytes:
        """The payload in a signed envelope, or as it is where nothing is signed."""
        challenge = self._challenges.get(topics.base)
        if self._sign is None or challenge is None:
            return payload.encode()
        text = text_to_sign(
            base=topics.base,
            principal=self.principal,
            op=op,
            job_id=job_id,
            challenge=challenge,
            payload=payload.encode(),
        )
        body = envelope(job_id=job_id, challenge=challenge, payload=payload, signature=self._sign(text))
        return json.dumps(body, ensure_ascii=False).encode()

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
        body = {**fields, "id": job_id}
        properties = None
        if self._mqtt5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if reply_topic is not None:
                properties.ResponseTopic = reply_topic
            properties.CorrelationData = job_id.encode()
            properties.MessageExpiryInterval = max(1, int(timeout_s))
            properties.ContentType = "application/json"
            properties.PayloadFormatIndicator = 1
        if not self._mqtt5 or self._sign is not None:  # properties are not signed, so what they say is said inside too
            body["ttl_ms"] = max(1, int(timeout_s * 1000))
            if reply_topic is not None:
                body["reply_to"] = reply_topic
        payload = self._sealed(topics, op, job_id, json.dumps(body, ensure_ascii=False))
        info = self._client.publish(topics.request(self.principal, op), payload, qos=1, properties=properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise BrokerError(f"the connection to {self._broker} was lost. Ask again")
        return info.mid

    def _hear(self, deadline: float) -> Iterator[paho.MQTTMessage]:
        """Messages as they come, until the deadline."""
        while (message := self.take(deadline)) is not None:
            yield message

    def take(self, deadline: float) -> paho.MQTTMessage | None:
        """The next message; None at the deadline.

        Raises BrokerError when the connection ends, NobodyListensError where a message of ours is heard by nobody.
        """
        try:
            message = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if isinstance(message, BaseException):
            raise message
        return message

    def subscribe(self, *wanted: str) -> None:
        """Hear these topics too. Raises BrokerError where the broker does not allow it."""
        self._client.subscribe([(topic, 1) for topic in wanted])
        try:
            refusal = self._granted.get(timeout=self._patience_s)
        except queue.Empty:
            raise BrokerError(f"{self._broker} does not answer any more. Ask again") from None
        if isinstance(refusal, BaseException):
            raise refusal
        if refusal:
            raise BrokerError(f"{self._broker} does not let {self.principal} read {' and '.join(wanted)}: {refusal}")

    def _refused(self, refusal: str) -> str:
        if refusal == _SILENT:
            return (
                f"{self._broker} took the connection and said nothing for {self._patience_s:g} s. "
                "Is it an MQTT broker, and not overloaded?"
            )
        if refusal == _CLOSED:
            return f"{self._broker} closed the connection without a word. Is it an MQTT broker, and is mqtt:// right?"
        return f"{self._broker} refused us: {refusal}{_mend(refusal)}"

    def _connect(self, mqtt5: bool, deadline: float, answer_s: float) -> str:
        """Connect; gives the broker's refusal, or "". Raises BrokerError where there is no broker.

        `answer_s` is the time for the broker's answer once the connection stands; the deadline holds for both.
        """
        self._mqtt5 = mqtt5
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
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = lambda client, userdata, sock: sock.setsockopt(  # type: ignore[attr-defined]
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        client.on_message = lambda client, userdata, message: self._heard.put(message)
        client.on_publish = self._on_publish
        try:
            if self._broker.tls:
                client.tls_set_context(_tls_context(self._ca))
            client.connect(self._broker.host, self._broker.port, keepalive=30)
        except (OSError, ValueError) as error:
            raise BrokerError(
                f"{self._broker} cannot be reached: {error}. Is it running, and the address right?"
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
            self._heard.put(BrokerError(f"the connection to {self._broker} was lost: {reason.getName()}. Ask again"))

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.value == NO_MATCHING_SUBSCRIBERS:
            self._heard.put(NobodyListensError(mid))

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


def new_id() -> str:
    """An id for a request that no other has."""
    return secrets.token_hex(8)


def _mend(refusal: str) -> str:
    if refusal in ("Not authorized", "Bad user name or password"):
        return (
            ". Give the user in the address, mqtt://USER@HOST, and the password in --password-file or "
            "EDGEBIT_MQTT_PASSWORD"
        )
    return ""


def device_words(device: str, error: Any) -> str:
    """What a device says of its failure, as a sentence."""
    if not isinstance(error, dict):
        return f"{device}: {error}"
    words = f"{device}: {error.get('message', 'no reason given')} ({error.get('status')} {error.get('code')})"
    if error.get("retryable"):
        wait_ms = error.get("retry_after_ms")
        words += (
            f". Ask again in {wait_ms // 1000} s" if isinstance(wait_ms, int) and wait_ms >= 1000 else ". Ask again"
        )
    return words


def parse_json(payload: bytes | bytearray) -> Any:
    """What a payload holds; None also where it could not be written again as JSON in UTF-8 (NaN, half a character)."""
    try:
        body = json.loads(payload)
        json.dumps([[body]], ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return body


def device_of(root: str, topic: str) -> str:
    """The device's name in one of its topics; empty where it is none."""
    prefix = f"{root}/v{VERSION}/"
    return topic[len(prefix) :].partition("/")[0] if topic.startswith(prefix) else ""


def availability_state(payload: bytes | bytearray) -> str:
    """online, offline or lost; "gone" for what is none."""
    body = parse_json(payload)
    return str(body.get("state")) if isinstance(body, dict) else "gone"
