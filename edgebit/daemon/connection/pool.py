"""The device's place in its pools: a connection of its own, which joins and leaves as pool_membership.decide() says.

It hears and never speaks: answers go over the device's own connection.
"""

import dataclasses
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable

from edgebit.daemon.config.sections import Config
from edgebit.daemon.connection.events import MqttEvent
from edgebit.daemon.connection.mqtt import Connection
from edgebit.daemon.connection.pool_membership import Fitness, Membership, decide
from edgebit.daemon.connection.role import pool_role
from edgebit.daemon.contract.messages import Incoming, Refusal
from edgebit.daemon.contract.requests import ADAPTER_OPS
from edgebit.daemon.contract.topics import PoolTopics

log = logging.getLogger("edgebit.pool")

# What asks for one job: the caller knows which device has it, and asks there.
DIRECT_OPS = frozenset({"cancel", "get"})


class Pool:
    """look() and take() from one thread, run() in one of its own."""

    def __init__(
        self, config: Config, deliver: Callable[[Incoming], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`deliver` takes what is asked of a pool, in the network thread. Raises ConfigError as Connection does."""
        self._config = config.pool
        self._pools = [PoolTopics(config.mqtt.root, name) for name in config.pool.names]
        self._own = config.topics
        self._clock = clock
        self._membership = Membership()

        def requests_only(event: MqttEvent) -> None:
            if isinstance(event, Incoming):
                deliver(event)

        numbers = itertools.count(-1, -1)  # below those of the device's own connections, which others see
        self._connection = Connection(config, pool_role(config), numbers.__next__, requests_only)
        self.run = self._connection.run
        self.close = self._connection.close

    @property
    def alive_at(self) -> float:
        """When its network thread gave its last sign of life."""
        return self._connection.alive_at

    @property
    def counters(self) -> Counter[str]:
        """Of its connection."""
        return Counter({f"pool_{name}": count for name, count in self._connection.counters.items()})

    def joined(self) -> dict[str, bool]:
        """By pool, whether the broker gives requests to this device now."""
        is_in = bool(self._pools) and len(self._connection.heard) == len(self._pools)
        return dict.fromkeys(self._config.names, is_in)

    def look(self, fitness: Fitness) -> Membership | None:
        """Join or leave as the fitness wants it; gives the membership where it has changed."""
        before, self._membership = self._membership, decide(self._membership, fitness, self._config, self._clock())
        self._connection.subscribe_to(*(pool.share for pool in self._pools if self._membership.is_in))
        if before.is_in == self._membership.is_in:
            return None
        place = "in" if self._membership.is_in else "out of"
        log.info("%s %s: %s", place, ", ".join(self._config.names), self._membership.reason)
        return self._membership

    def take(self, incoming: Incoming) -> Incoming:
        """A request to a pool as one to this device, with a refusal where it is not for it; all others as they are."""
        for pool in self._pools:
            parsed = pool.parse_request(incoming.topic)
            if parsed is not None:
                topic = self._own.request(*parsed)
                return dataclasses.replace(incoming, topic=topic, refusal=self._refusal(pool.pool, parsed[1]))
        return incoming

    def _refusal(self, pool: str, op: str) -> Refusal | None:
        if op in DIRECT_OPS:
            return Refusal(400, "not_for_pools", f"{op} goes to the device that has the job, which its answer names")
        if op in ADAPTER_OPS:
            return Refusal(
                400, "not_for_pools", f"{op} goes to each device by its own name: they keep their own adapters"
            )
        if not self._membership.is_in:
            words = f"this device has just left pool {pool!r}: {self._membership.reason}"
            return Refusal(503, "not_in_pool", words, retryable=True)
        return None
