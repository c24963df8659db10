"""The topic trees `<root>/v1/<device>/...` and `<root>/v1/_pool/<pool>/...` (docs/mqtt.md, docs/pools.md).

Names made, names read, and where an answer may go.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

VERSION = 1
DEFAULT_ROOT = "edgebit"
POOL_LEVEL = "_pool"  # stands where else a device's name does
RESPONSE_TOPIC_MAX_BYTES = 256

_SEGMENT = re.compile(r"[a-z0-9_.-]{1,64}")
_PRINCIPAL = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,64}")


def is_segment(text: str) -> bool:
    """Whether `text` may be a pool's name or a level of the root: 1 to 64 of a-z 0-9 _ . -"""
    return _SEGMENT.fullmatch(text) is not None


def is_device(text: str) -> bool:
    """Whether `text` may be a device's name: a segment, and not the level that all pools lie below."""
    return is_segment(text) and text != POOL_LEVEL


def is_root(text: str) -> bool:
    """Whether `text` may be the root: one or more segments with / between them."""
    return all(is_segment(part) for part in text.split("/"))


def is_principal(text: str) -> bool:
    """Whether `text` may be a principal, which a broker's access list ties to a user name."""
    return _PRINCIPAL.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Whether `text` may be a job's id, and so the last level of a topic."""
    return _ID.fullmatch(text) is not None


def segment_of(text: str) -> str:
    """The nearest name that may be a device's: "Pi-5.local" becomes "pi-5.local"."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-")[:64]
    return name if is_device(name) else "device"


def _is_sendable(character: str) -> bool:
    """Whether a broker takes the character in a topic: for others it may end the connection of who sends them.

    Source: MQTT 5.0, 1.5.4: no U+0000, no surrogates; control characters and non-characters should not be there.
    """
    code = ord(character)
    is_control = code < 0x20 or 0x7F <= code <= 0x9F
    is_surrogate = 0xD800 <= code <= 0xDFFF
    is_no_character = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return not (is_control or is_surrogate or is_no_character)


def _principal_and_op(base: str, topic: str) -> tuple[str, str] | None:
    prefix = f"{base}/in/"
    if not topic.startswith(prefix):
        return None
    principal, slash, op = topic[len(prefix) :].partition("/")
    return (principal, op) if slash and "/" not in op else None


@dataclass(frozen=True, slots=True)
class PoolTopics:
    """Where requests to a pool go, of which one of its devices takes each."""

    root: str
    pool: str

    @property
    def base(self) -> str:
        """What every topic of the pool begins with."""
        return f"{self.root}/v{VERSION}/{POOL_LEVEL}/{self.pool}"

    @property
    def share(self) -> str:
        """The filter that its devices subscribe to, as one group: the broker gives each request to one of them."""
        return f"$share/eb.{self.pool}/{self.base}/in/+/+"

    def request(self, principal: str, op: str) -> str:
        """Where `principal` asks whoever is in the pool for `op`."""
        return f"{self.base}/in/{principal}/{op}"

    def parse_request(self, topic: str) -> tuple[str, str] | None:
        """Principal and operation of a request's topic; None where it is no request to this pool."""
        return _principal_and_op(self.base, topic)


@dataclass(frozen=True, slots=True)
class DeviceTopics:
    """All topics of one device."""

    root: str
    device: str

    @property
    def base(self) -> str:
        """What every topic of the device begins with."""
        return f"{self.root}/v{VERSION}/{self.device}"

    @property
    def availability(self) -> str:
        """Retained: online, offline or lost."""
        return f"{self.base}/availability"

    @property
    def info(self) -> str:
        """Retained: what the device can do."""
        return f"{self.base}/info"

    @property
    def status(self) -> str:
        """Retained: what it does now."""
        return f"{self.base}/status"

    @property
    def metrics(self) -> str:
        """Readings and counters, at an interval."""
        return f"{self.base}/metrics"

    @property
    def event(self) -> str:
        """Rare facts."""
        return f"{self.base}/event"

    @property
    def requests(self) -> str:
        """The filter the device subscribes to."""
        return f"{self.base}/in/+/+"

    def request(self, principal: str, op: str) -> str:
        """Where `principal` asks for `op`."""
        return f"{self.base}/in/{principal}/{op}"

    def reply(self, principal: str, job_id: str) -> str:
        """Where an answer goes when the request named no place."""
        return f"{self.base}/out/{principal}/{job_id}"

    def parse_request(self, topic: str) -> tuple[str, str] | None:
        """Principal and operation of a request's topic; None where it is no request to this device."""
        return _principal_and_op(self.base, topic)

    def nameless(self, topic: str) -> str:
        """A topic as logs show it, without who asks: <base>/in/+/generate. What is not ours shows nothing."""
        for direction in ("in", "out"):
            prefix = f"{self.base}/{direction}/"
            if topic.startswith(prefix):
                last = topic[len(prefix) :].partition("/")[2]
                return f"{prefix}+/{last[:64] if last.isprintable() else '?'}"
        return topic if topic.startswith(f"{self.base}/") else "another topic"

    def refusal(self, topic: str, principal: str, prefixes: Sequence[str] = ()) -> str | None:
        """Why an answer to `principal` may not go to `topic`; None where it may.

        The device publishes with its own rights, so a caller must not choose any topic: allowed are the caller's own
        `<root>/v1/+/out/<principal>/...` and what the configuration names, with {principal} in place.
        """
        if not topic or len(topic.encode(errors="replace")) > RESPONSE_TOPIC_MAX_BYTES:
            return f"a response topic has 1 to {RESPONSE_TOPIC_MAX_BYTES} bytes"
        if any(character in "+#" or not _is_sendable(character) for character in topic):
            return "a response topic has no wildcards and no control characters"
        if topic.startswith("$"):
            return "topics that begin with $ are the broker's own"
        own = f"{self.root}/v{VERSION}/"
        if topic.startswith(own):
            device, *rest = topic[len(own) :].split("/", 3)
            if device != POOL_LEVEL and len(rest) == 3 and rest[0] == "out" and rest[1] == principal and rest[2]:
                return None
        for prefix in prefixes:
            full = prefix.replace("{principal}", principal)
            if topic.startswith(full) and len(topic) > len(full):
                return None if not topic.startswith(own) else "requests and states are no place for an answer"
        return f"answers to {principal} go below {own}<device>/out/{principal}/"
