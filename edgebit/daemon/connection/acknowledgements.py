"""What was received and is not acknowledged yet, and what was sent and nobody has acknowledged yet."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgebit.daemon.contract.frames import Outgoing


@dataclass(eq=False, slots=True)
class _Received:
    send: Callable[[], object]
    taken: bool = False


class Receipts:
    """Messages received on the present connection, acknowledged in the order they came, from any thread.

    An acknowledgement for a message of a connection before is dropped: its packet id may mean another one by now, and
    the broker sends the message again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Received] = deque()

    def received(self, send: Callable[[], object]) -> Callable[[], None]:
        """Note a message that `send` acknowledges; gives what its taker calls."""
        receipt = _Received(send)
        with self._lock:
            self._waiting.append(receipt)
        return lambda: self._take(receipt)

    def forget(self) -> None:
        """The connection has ended."""
        with self._lock:
            self._waiting.clear()

    def _take(self, receipt: _Received) -> None:
        with self._lock:
            receipt.taken = True
            while self._waiting and self._waiting[0].taken:
                self._waiting.popleft().send()


class Deliveries:
    """Messages that were given to a client, by packet id, until the broker has them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[int, Outgoing] = {}
        self._early: set[int] = set()  # confirmed before sent() was told

    def sent(self, packet_id: int, message: Outgoing) -> None:
        """A client has taken the message."""
        with self._lock:
            confirmed = packet_id in self._early
            self._early.discard(packet_id)
            if not confirmed:
                self._sent[packet_id] = message
        if confirmed:
            _tell(message)

    def confirmed(self, packet_id: int) -> None:
        """The broker has the message."""
        with self._lock:
            message = self._sent.pop(packet_id, None)
            if message is None:
                self._early.add(packet_id)
        if message is not None:
            _tell(message)

    def waiting(self, *, giving_way: bool = False) -> int:
        """How many messages are kept until the broker has them: all, or those that give way to answers."""
        with self._lock:
            return sum(1 for each in self._sent.values() if each.qos and each.gives_way >= giving_way)

    def connection_ended(self) -> None:
        """What was sent at QoS 0 is gone or there, and nobody will ever say which."""
        with self._lock:
            self._sent = {packet_id: message for packet_id, message in self._sent.items() if message.qos > 0}

    def take_all(self) -> list[Outgoing]:
        """What the broker has not confirmed, in the order it was sent, and forget it: its client is given up."""
        with self._lock:
            left = [message for message in self._sent.values() if message.qos > 0]
            self._sent.clear()
            self._early.clear()
        return left


def _tell(message: Outgoing) -> None:
    if message.delivered is not None:
        message.delivered()
