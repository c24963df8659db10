"""What has come for the main thread: requests, in bounded number, and news of the connection, in order."""

import queue
import threading
from dataclasses import dataclass

from edgebit.daemon.connection.events import MqttEvent
from edgebit.daemon.contract.messages import Incoming

REQUESTS_MAX = 16  # read off the network and not yet looked at; then the broker is held back


@dataclass(frozen=True, slots=True)
class FromInside:
    """A request of a local caller: their number is bounded where they come from."""

    incoming: Incoming


class Inbox:
    """Filled from any thread, emptied by one."""

    def __init__(self, stopping: threading.Event) -> None:
        """Once `stopping` is set nobody may read any more, and nobody waits for it."""
        self._stopping = stopping
        self._events: queue.SimpleQueue[MqttEvent | FromInside | None] = queue.SimpleQueue()
        self._room = threading.BoundedSemaphore(REQUESTS_MAX)

    def deliver(self, event: MqttEvent) -> None:
        """From the network thread, which waits here while the reader is behind."""
        if isinstance(event, Incoming):
            while not self._room.acquire(timeout=0.5):
                if self._stopping.is_set():
                    return
        self._events.put(event)

    def deliver_inside(self, incoming: Incoming) -> None:
        """A request of a local caller."""
        self._events.put(FromInside(incoming))

    def wake(self) -> None:
        """Let the reader look at what else has changed. From a signal handler too."""
        self._events.put(None)

    def take(self, patience_s: float) -> list[MqttEvent | FromInside]:
        """What has come, at most REQUESTS_MAX; waits for the first of it."""
        taken: list[MqttEvent | FromInside] = []
        while len(taken) < REQUESTS_MAX:
            try:
                event = self._events.get(timeout=patience_s)
            except queue.Empty:
                break
            patience_s = 0.0
            if isinstance(event, Incoming):
                self._room.release()
            if event is not None:
                taken.append(event)
        return taken
