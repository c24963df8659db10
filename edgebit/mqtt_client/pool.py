"""Asking a pool of devices (docs/pools.md): whichever takes the question answers it, and no other is followed.

Where none takes it, it is sent again under the same id, a bounded number of times.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgebit.daemon.contract.topics import DeviceTopics, PoolTopics, is_segment, segment_of
from edgebit.errors import NoAnswerError
from edgebit.mqtt_client.answers import Assembler, Exchange, conclude, device_words
from edgebit.mqtt_client.client import GAP_WAIT_S, LATE_S, DeviceClient
from edgebit.mqtt_client.connection import MessageRefusedError, NobodyListensError
from edgebit.mqtt_client.device_states import DeviceState, availability_state, device_of
from edgebit.mqtt_client.json_payload import parse_json

FIRST_REPLY_S = 10.0  # a device says at once that it has taken the question, before it computes anything
ATTEMPTS_MAX = 6
BACKOFF_S = 0.25  # before the second attempt; twice as long before each one after, and drawn from half of it up
BACKOFF_CAP_S = 4.0
ELSEWHERE = 503  # the status of a refusal that another device may not give


class PoolCall:
    """What has come of a question to a pool, and what is to be done next. Times are monotonic seconds."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.attempts = 0
        self.next_at = 0.0  # when it is sent again, if nobody has taken it until then
        self.device: str | None = None  # who answers
        self.assembler = Assembler()
        self.refusals: dict[str, str] = {}  # who would not, and why
        self._strays: set[str] = set()
        self._rng = rng or random.Random()

    def is_due(self, now: float) -> bool:
        """Whether to send the question now."""
        return self.device is None and self.attempts < ATTEMPTS_MAX and now >= self.next_at

    def is_given_up(self, now: float) -> bool:
        """Whether nobody took it, as often as it was sent."""
        return self.device is None and self.attempts >= ATTEMPTS_MAX and now >= self.next_at

    def sent(self, now: float) -> None:
        """The question is on its way."""
        self.attempts += 1
        self.next_at = now + FIRST_REPLY_S

    def hear(self, device: str, frame: dict[str, Any], now: float) -> str:
        """Take a frame of an answer; gives the text that can be shown now."""
        if self.device not in (None, device):
            if not frame.get("done"):
                self._strays.add(device)
            return ""
        error = frame.get("error")
        if isinstance(error, dict) and self._may_go_elsewhere(error):
            self._go_elsewhere(device, device_words(device, error), now)
            return ""
        if self.device is None:
            self.device = device
        return self.assembler.push(frame)

    def lost(self, device: str, state: str, now: float) -> None:
        """A device went `state`. Raises NoAnswerError where it is in the middle of an answer that was shown."""
        if device != self.device:
            return
        if self.assembler.text:
            raise NoAnswerError(f"{device} went {state} before it had answered. Ask again")
        self._go_elsewhere(device, f"{device} went {state}", now)

    def take_strays(self) -> set[str]:
        """Devices that answer too, because they had been silent for too long; each is told once."""
        strays, self._strays = self._strays, set()
        return strays

    def _may_go_elsewhere(self, error: dict[str, Any]) -> bool:
        return bool(error.get("retryable")) and error.get("status") == ELSEWHERE and not self.assembler.text

    def _go_elsewhere(self, device: str, reason: str, now: float) -> None:
        self.refusals[device] = reason
        self.device, self.assembler = None, Assembler()
        longest = min(BACKOFF_CAP_S, BACKOFF_S * 2.0 ** (self.attempts - 1))
        self.next_at = now + self._rng.uniform(longest / 2, longest)


def stream_from_pool(
    client: DeviceClient, pool: str, op: str, fields: Mapping[str, Any], exchange: Exchange, *, timeout_s: float
) -> Iterator[str]:
    """As DeviceClient.stream(), from whichever device of the pool takes the question; exchange.device names it.

    Where a device that was silent for too long answers after all, its job is cancelled; it may have run by then.
    """
    if not is_segment(pool):
        raise NoAnswerError(f"{pool!r} is no pool's name, which is 1 to 64 of a-z 0-9 _ . - (try {segment_of(pool)!r})")
    asking = _Asking(client, pool, exchange)
    body = {**fields, "ack": True}  # so that whoever takes it says so before it computes anything
    deadline = time.monotonic() + timeout_s + LATE_S
    client.connection.subscribe(asking.replies)
    while not asking.call.assembler.complete and (now := time.monotonic()) < deadline:
        if asking.call.is_given_up(now):
            break
        if asking.call.is_due(now):
            asking.send(op, body, timeout_s)
        if piece := asking.listen(deadline):
            yield piece
        if asking.call.assembler.last is not None:  # whatever came before it and is missing has little time left
            deadline = min(deadline, time.monotonic() + GAP_WAIT_S)
    client.connection.unsubscribe(asking.replies)
    if asking.call.device is None:
        raise NoAnswerError(asking.failure(timeout_s))
    conclude(asking.call.device, asking.call.assembler, exchange, timeout_s)


class _Asking:
    """One question on its way: what PoolCall decides is done here."""

    def __init__(self, client: DeviceClient, pool: str, exchange: Exchange) -> None:
        self.call = PoolCall()
        self.replies = DeviceTopics(client.root, "+").reply(client.principal, exchange.id)
        self._client = client
        self._pool = pool
        self._exchange = exchange
        self._packet_id = 0
        self._watched: set[str] = set()  # devices whose availability is heard

    def send(self, op: str, body: Mapping[str, Any], timeout_s: float) -> None:
        """Once more, under the same id and with the same content."""
        if self.call.attempts and not self.call.refusals and not _members(self._pool, devices := self._devices()):
            raise NoAnswerError(absence(self._pool, devices))
        pool = PoolTopics(self._client.root, self._pool)
        self._packet_id = self._client.send(pool, op, None, body, self._exchange.id, timeout_s)
        self.call.sent(time.monotonic())

    def listen(self, deadline: float) -> str:
        """Wait for one message, or until there is something to do; gives the text that can be shown."""
        until = deadline if self.call.device else min(deadline, self.call.next_at)
        try:
            message = self._client.connection.take(until)
        except (NobodyListensError, MessageRefusedError) as error:
            if error.packet_id != self._packet_id:  # that was a cancel
                return ""
            if isinstance(error, MessageRefusedError):
                raise
            raise NoAnswerError(absence(self._pool, self._devices())) from None
        if message is None:
            return ""
        device = device_of(self._client.root, message.topic)
        topics = DeviceTopics(self._client.root, device)
        if message.topic == topics.availability:
            if (state := availability_state(message.payload)) != "online":
                self.call.lost(device, state, time.monotonic())
            return ""
        frame = parse_json(message.payload)
        if message.topic != topics.reply(self._client.principal, self._exchange.id) or not isinstance(frame, dict):
            return ""
        return self._hear(device, topics, frame)

    def _hear(self, device: str, topics: DeviceTopics, frame: dict[str, Any]) -> str:
        piece = self.call.hear(device, frame, time.monotonic())
        self._exchange.device = self.call.device or ""
        if self.call.device == device and device not in self._watched:
            self._watched.add(device)
            self._client.connection.subscribe(topics.availability)
        for stray in self.call.take_strays():
            self._client.cancel(stray, self._exchange.id)
        return piece

    def failure(self, timeout_s: float) -> str:
        """Why nobody answered."""
        if self.call.refusals:
            said = "; ".join(self.call.refusals.values())
            return f"no device of pool {self._pool!r} took the question, asked {self.call.attempts} times: {said}"
        return f"no device of pool {self._pool!r} answered within {timeout_s:g} s. Give it a longer --timeout"

    def _devices(self) -> list[DeviceState]:
        return self._client.devices()


def _members(pool: str, devices: Sequence[DeviceState]) -> list[str]:
    return [item.name for item in devices if item.availability == "online" and pools_of(item).get(pool)]


def pools_of(device: DeviceState) -> dict[str, bool]:
    """The pools that a device says it belongs to, and whether it is in them now. Anybody may have published it."""
    pools = device.status.get("pools")
    online = device.availability == "online"
    return {name: online and value is True for name, value in pools.items()} if isinstance(pools, dict) else {}


def absence(pool: str, devices: Sequence[DeviceState]) -> str:
    """Why nobody is in the pool, as far as the devices have said."""
    known = [item for item in devices if pool in pools_of(item)]
    states = [str(item.status.get("state")) if item.availability == "online" else item.availability for item in known]
    if not known:
        return f"nobody is in pool {pool!r}, and no device says that it belongs to it: [pool] names in edgebitd.toml"
    said = ", ".join(f"{item.name} ({state})" for item, state in zip(known, states, strict=True))
    return f"nobody is in pool {pool!r} now. To it belong {said}. Ask again later"
