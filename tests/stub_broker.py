"""An MQTT broker in a few threads that breaks and loses what a test tells it to; QoS 0 and 1, MQTT 5 and 3.1.1."""

import contextlib
import queue
import socket
import threading
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import mqtt_packets as packets
from mqtt_packets import Connect, Message
from paho.mqtt.client import topic_matches_sub

RETAIN_AS_PUBLISHED = 8  # a subscription's option, connected or not (MQTT 5, 3.8.3.1); 3.1.1 has it always 0
Point = Literal["request", "request_ack", "answer", "answer_ack"]


@dataclass(slots=True)
class Fault:
    """What happens to a packet of a client: at which point, on which topic, and which one of those."""

    at: Point  # request: broker to client; request_ack: its PUBACK; answer: client to broker; answer_ack: its PUBACK
    topic: str
    nth: int = 1
    lost: bool = True
    breaks: bool = True  # the connection, at once


@dataclass(slots=True)
class _Session:
    subscriptions: dict[str, int] = field(default_factory=dict)  # filter: options
    unacknowledged: dict[int, Message] = field(default_factory=dict)  # what was sent, in that order
    last_id: int = 0
    link: "_Link | None" = None

    @property
    def is_connected(self) -> bool:
        return self.link is not None and not self.link.is_cut

    def next_id(self) -> int:
        self.last_id = self.last_id % 65535 + 1
        return self.last_id


class _Link:
    """One connection of one client."""

    def __init__(self, sock: socket.socket, connect: Connect) -> None:
        self.connect = connect
        self.is_cut = False
        self._sock = sock
        self._lock = threading.Lock()

    @property
    def mqtt5(self) -> bool:
        return self.connect.mqtt5

    def write(self, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._sock.sendall(data)

    def cut(self) -> None:
        self.is_cut = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class StubBroker:
    """Listens on a free port of the loopback from the start; close() ends it.

    What clients publish is put into `heard`, passed on to those who have subscribed, and kept where it is retained.
    """

    def __init__(self, *, packet_max: int = 0) -> None:
        self.heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.faults: list[Fault] = []
        self.connections = 0
        self._connack: dict[str, Any] = {"packet_max": packet_max} if packet_max else {}
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._sessions: dict[str, _Session] = {}
        self._retained: dict[str, Message] = {}
        self._accepting = True
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.cut()

    # What a test does

    def publish(self, message: Message) -> None:
        """To everyone who has subscribed, as if a client had sent it."""
        with self._lock:
            if message.retain:
                self._retain(message)
            for session in self._sessions.values():
                options = [qos for topic, qos in session.subscriptions.items() if _matches(topic, message.topic)]
                if options:
                    self._send(session, message, options[0])

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            for session in self._sessions.values():
                if session.link is not None:
                    session.link.cut()

    def go_down(self) -> None:
        """Break all connections, and take no other until come_up()."""
        with self._lock:
            self._accepting = False
            self.cut()

    def come_up(self) -> None:
        with self._lock:
            self._accepting = True

    def forget(self) -> None:
        """What a broker without a disk forgets when it is restarted: sessions and retained messages."""
        with self._lock:
            self._retained.clear()
            for session in self._sessions.values():
                if session.link is not None:
                    session.link.cut()
            self._sessions = {}

    def wait_subscribed(self, topic: str, timeout_s: float = 15.0) -> None:
        """Until a client that is connected has this very filter."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._has_subscriber(topic), timeout_s), f"nobody subscribes {topic}"

    def _has_subscriber(self, topic: str) -> bool:
        return any(item.is_connected and topic in item.subscriptions for item in self._sessions.values())

    # What clients do

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            kind, _, body = packets.read_packet(sock)
            if kind != packets.CONNECT:
                return
            link = _Link(sock, packets.read_connect(body))
            session = self._begin(link)
            clean_end = False
            try:
                while not clean_end:
                    kind, flags, body = packets.read_packet(sock)
                    if link.is_cut:  # what had come before that is lost
                        break
                    clean_end = kind == packets.DISCONNECT
                    self._handle(session, link, kind, flags, body)
            finally:
                self._end(session, link, clean_end)

    def _begin(self, link: _Link) -> _Session:
        with self._changed:
            if not self._accepting:
                raise ConnectionRefusedError("the broker is down")
            name = link.connect.client_id or f"unnamed-{self.connections}"
            before = self._sessions.get(name)
            if before is not None and before.link is not None:
                before.link.cut()
            present = before is not None and not link.connect.clean
            session = before if before is not None and present else _Session()
            self._sessions[name] = session
            session.link = link
            self.connections += 1
            assigned = {} if link.connect.client_id else {"assigned_client_id": name}
            link.write(packets.connack(link.mqtt5, present, self._connack | assigned))
            for message in session.unacknowledged.values():
                link.write(packets.publish(replace(message, dup=True), link.mqtt5))
            self._changed.notify_all()
            return session

    def _end(self, session: _Session, link: _Link, clean_end: bool) -> None:
        with self._changed:
            if session.link is link:
                session.link = None
            will = link.connect.will
            self._changed.notify_all()
        if will is not None and not clean_end:
            self._hand_on(will)

    def _handle(self, session: _Session, link: _Link, kind: int, flags: int, body: bytes) -> None:
        if kind == packets.PUBLISH:
            self._take(link, packets.read_publish(flags, body, link.mqtt5))
        elif kind == packets.PUBACK:
            self._take_ack(session, link, packets.read_puback(body))
        elif kind == packets.SUBSCRIBE:
            packet_id, filters = packets.read_filters(body, link.mqtt5, options=True)
            with self._changed:
                session.subscriptions.update(filters)
                link.write(packets.granted(packets.SUBACK, packet_id, link.mqtt5, bytes(qos & 3 for _, qos in filters)))
                self._send_retained(session, filters)
                self._changed.notify_all()
        elif kind == packets.UNSUBSCRIBE:
            packet_id, filters = packets.read_filters(body, link.mqtt5, options=False)
            with self._lock:
                for topic, _ in filters:
                    session.subscriptions.pop(topic, None)
            codes = bytes(len(filters)) if link.mqtt5 else b""
            link.write(packets.granted(packets.UNSUBACK, packet_id, link.mqtt5, codes))
        elif kind == packets.PINGREQ:
            link.write(packets.packet(packets.PINGRESP, b""))

    def _take(self, link: _Link, message: Message) -> None:
        fault = self._fault("answer", message.topic)
        if fault is None or not fault.lost:
            self._hand_on(message)
            if message.qos and (fault is None or not fault.breaks):
                self._acknowledge(link, message)
        if fault is not None and fault.breaks:
            link.cut()

    def _acknowledge(self, link: _Link, message: Message) -> None:
        fault = self._fault("answer_ack", message.topic)
        if fault is None or not fault.lost:
            link.write(packets.puback(message.packet_id))
        if fault is not None and fault.breaks:
            link.cut()

    def _take_ack(self, session: _Session, link: _Link, packet_id: int) -> None:
        with self._lock:
            message = session.unacknowledged.get(packet_id)
            fault = self._fault("request_ack", message.topic) if message is not None else None
            if fault is None or not fault.lost:
                session.unacknowledged.pop(packet_id, None)
        if fault is not None and fault.breaks:
            link.cut()

    def _hand_on(self, message: Message) -> None:
        self.heard.put(message)
        self.publish(replace(message, dup=False))

    def _send(self, session: _Session, message: Message, options: int) -> None:
        link, qos = session.link, min(message.qos, options & 3)
        if link is None and not qos:
            return
        message = replace(message, qos=qos, retain=bool(message.retain and options & RETAIN_AS_PUBLISHED))
        if qos:
            message = replace(message, packet_id=session.next_id())
            session.unacknowledged[message.packet_id] = message
        if link is None:
            return
        fault = self._fault("request", message.topic)
        if fault is None or not fault.lost:
            link.write(packets.publish(message, link.mqtt5))
        if fault is not None and fault.breaks:
            link.cut()

    def _retain(self, message: Message) -> None:
        if message.payload:
            self._retained[message.topic] = message
        else:
            self._retained.pop(message.topic, None)

    def _send_retained(self, session: _Session, filters: list[tuple[str, int]]) -> None:
        link = session.link
        for topic, options in filters:
            if link is None or (link.mqtt5 and options >> 4 & 3 == 2):
                continue
            for message in [item for item in self._retained.values() if _matches(topic, item.topic)]:
                kept = replace(message, qos=0, dup=False, packet_id=0)
                link.write(packets.publish(kept, link.mqtt5))

    def _fault(self, at: Point, topic: str) -> Fault | None:
        """The fault that strikes this packet; it is then over."""
        with self._lock:
            for fault in self.faults:
                if fault.at == at and fault.topic == topic:
                    fault.nth -= 1
                    if not fault.nth:
                        self.faults.remove(fault)
                        return fault
        return None


def _matches(topic_filter: str, topic: str) -> bool:
    return topic_matches_sub(topic_filter, topic)
