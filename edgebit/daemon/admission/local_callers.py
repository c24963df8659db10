"""Requests from inside the daemon, on the same way as those from the broker: inbox, admission, scheduler, journal.

A local caller has a principal of its own. What is said to this principal's reply topics goes to the caller, and never
to the broker; requests in its name that come from the broker are not taken.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgebit.daemon.contract.frames import Outgoing, Publisher, encode_json
from edgebit.daemon.contract.messages import Incoming
from edgebit.daemon.contract.topics import DeviceTopics

log = logging.getLogger("edgebit.local")

Hearer = Callable[[Outgoing], None]  # called in whatever thread the answer comes from: be quick, and never raise


class LocalCallers:
    """Stands before the broker's Publisher, and keeps back what is for a caller in here."""

    def __init__(
        self,
        publisher: Publisher,
        topics: DeviceTopics,
        principals: Iterable[str],
        deliver: Callable[[Incoming], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deliver` puts a message where those from the broker go, and does not wait there."""
        self._publisher = publisher
        self._topics = topics
        self._principals = frozenset(principals)
        self._deliver = deliver
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[str, Hearer] = {}

    @property
    def packet_max(self) -> int:
        """As the broker has it."""
        return self._publisher.packet_max

    def publish(self, message: Outgoing) -> bool:
        """See Publisher: to the local caller that waits at the topic, or to the broker where it is nobody's in here."""
        if self._principal_of(message.topic, "out") is None:
            return self._publisher.publish(message)
        if message.delivered is not None:
            message.delivered()
        with self._lock:
            hear = self._waiting.get(message.topic)
        if hear is None:
            log.debug("nobody waits for %s any more", self._topics.nameless(message.topic))
            return True
        hear(message)
        return True

    def owns(self, incoming: Incoming) -> bool:
        """Whether a message from the broker claims to come from a local caller."""
        return self._principal_of(incoming.topic, "in") is not None

    def ask(self, principal: str, op: str, fields: Mapping[str, Any], hear: Hearer) -> str:
        """Send a request; gives its id. Every message of the answer goes to `hear`, until forget()."""
        job_id = secrets.token_hex(8)
        with self._lock:
            self._waiting[self._topics.reply(principal, job_id)] = hear
        self._send(principal, op, {**fields, "id": job_id})
        return job_id

    def cancel(self, principal: str, job_id: str) -> None:
        """End a job whose answer nobody wants any more."""
        self.forget(principal, job_id)
        self._send(principal, "cancel", {"id": job_id})

    def forget(self, principal: str, job_id: str) -> None:
        """Listen no longer for the answer of a job."""
        with self._lock:
            self._waiting.pop(self._topics.reply(principal, job_id), None)

    def _send(self, principal: str, op: str, fields: Mapping[str, Any]) -> None:
        topic = self._topics.request(principal, op)
        self._deliver(
            Incoming(topic=topic, payload=encode_json(fields), received=self._clock(), mqtt5=True, inside=True)
        )

    def _principal_of(self, topic: str, way: str) -> str | None:
        prefix = f"{self._topics.base}/{way}/"
        principal = topic[len(prefix) :].partition("/")[0] if topic.startswith(prefix) else None
        return principal if principal in self._principals else None
