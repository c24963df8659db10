"""The threads that bring messages and histories into a fleet, each over a connection of its own that it renews."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from edgebit.errors import BrokerError, DeviceError, NoAnswerError
from edgebit.monitor.device import KINDS
from edgebit.monitor.fleet import Fleet
from edgebit.monitor.history import read_history, samples_of
from edgebit.mqtt_client.client import DeviceClient

Connect = Callable[[], DeviceClient]

CHECK_S = 0.3  # how often a thread looks whether it is to end
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
PAST_TIMEOUT_S = 5.0
PAST_S = 3600.0
PAST_STEP_S = 30.0
PAST_FIELDS = ("t_soc", "clock_mhz", "power_w", "tok_s", "queued", "throttled")


class Feed:
    """Messages of the named devices, or of all, for as long as it is open."""

    def __init__(self, connect: Connect, fleet: Fleet, names: Sequence[str] = ()) -> None:
        """Connects. Raises BrokerError; later ones go into `fleet.trouble`, and it is tried again."""
        self._connect = connect
        self._fleet = fleet
        self._names = names
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._watching(),), name="feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watching(self) -> DeviceClient:
        client = self._connect()
        try:
            client.watch(self._names, KINDS, self._hear)
        except BrokerError:
            client.close()
            raise
        return client

    def _hear(self, name: str, kind: str, payload: bytes, retained: bool) -> None:
        self._fleet.hear(name, kind, payload, retained=retained)

    def _run(self, client: DeviceClient | None) -> None:
        tries = 0
        while not self._stop.is_set():
            try:
                if client is None:
                    client = self._watching()
                    self._fleet.trouble, tries = "", 0
                client.wait(CHECK_S)
            except BrokerError as error:
                self._fleet.trouble = str(error)
                if client is not None:
                    client.close()
                client = None
                self._stop.wait(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1
        if client is not None:
            client.close()


class PastReader:
    """Asks devices for their last hour, one after the other and each once."""

    def __init__(self, connect: Connect, fleet: Fleet, clock: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._fleet = fleet
        self._clock = clock
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._asked: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="past", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wanted.put(None)  # not waited for: it may be at an answer that does not come

    def want(self, names: Iterable[str]) -> None:
        """Ask those that have not been asked."""
        for name in names:
            if name not in self._asked:
                self._asked.add(name)
                self._wanted.put(name)

    def _run(self) -> None:
        client: DeviceClient | None = None
        while (name := self._wanted.get()) is not None:
            try:
                client = client or self._connect()
                fields = {"since_s": PAST_S, "step_s": PAST_STEP_S, "fields": list(PAST_FIELDS)}
                reply = client.ask(name, "history", fields, timeout_s=PAST_TIMEOUT_S)
                self._fleet.remember(name, samples_of(read_history(name, reply), self._clock()))
            except (DeviceError, NoAnswerError):
                continue  # one without a history, or that does not let us ask: what is seen here has to do
            except BrokerError:
                if client is not None:
                    client.close()
                client = None
        if client is not None:
            client.close()
