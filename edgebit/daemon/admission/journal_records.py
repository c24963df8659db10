"""What the journal remembers of a job, and its records: a kind, a JSON head, and bytes.

A job's records name it by a number of the journal's own. `accepted` holds all that is needed to run the job again,
`finished` all that is needed to answer again, so that what was asked may be forgotten once a job is finished.
What was accepted counts from the next `committed` on: all that came together or nothing, such as a batch and its items.
"""

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

from edgebit.daemon.admission.boot_clock import Instant
from edgebit.daemon.admission.record_file import HEAD, Span
from edgebit.daemon.contract.frames import encode_json

_HEAD = struct.Struct("<BI")
_INT64 = -(2**63), 2**63
Typed = TypeVar("Typed")
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, OverflowError, struct.error)  # what a strange record raises


class Kind(IntEnum):
    """Kinds of records."""

    ACCEPTED = 1  # the bytes are the request's fields
    JOINED = 2  # the answer goes to another place too
    SENDING = 3  # so many frames of a stream have been sent
    FINISHED = 4  # the bytes are the last frame
    DELIVERED = 5  # the broker has the last frame
    WITHDRAWN = 6  # it was never accepted, although its record was written
    RESUMED = 7  # taken up after a restart
    COMMITTED = 8  # all that was accepted before is to be acknowledged


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer goes."""

    topic: str
    correlation: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What tells a request from another, and one that was sent again from a new one."""

    principal: str
    id: str
    id_given: bool  # by the caller
    fingerprint: bytes
    connection: int  # the one it came on, and the broker's own name for it there
    packet_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it can be run again."""

    op: str
    fields: Mapping[str, Any]
    seed: int = 0  # drawn or given: the same request gives the same answer
    priority: int = 0
    topic_given: bool
    series: str | None
    ttl_s: float  # from `at` on
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended, beside the last frame's bytes."""

    status: int
    code: str  # of the error; empty: none
    retryable: bool
    content_type: str
    user: tuple[tuple[str, str], ...]
    ttl_s: float  # of the deadline, from `at` on
    at: Instant


@dataclass(eq=False, slots=True, kw_only=True)
class Entry:
    """One job as the journal has it. What was asked and answered lies in the file; or here, where it could not."""

    number: int
    identity: Identity
    places: list[Place]
    committed: bool = False
    asked: Span | bytes | None = None
    joins: list[Span | bytes] = field(default_factory=list)
    frames_sent: int = 0
    resumed: int = 0  # restarts since it was accepted
    reserve: int = 0  # bytes of the disk that are kept free for its end
    answer: Span | bytes | None = None
    ended: Ended | None = None
    undelivered: int = 0  # last frames that the broker does not have yet

    @property
    def key(self) -> tuple[str, str]:
        """Ids are each principal's own."""
        return self.identity.principal, self.identity.id

    @property
    def size(self) -> int:
        """Bytes of the file that are needed for it."""
        parts = [part for part in (self.asked, *self.joins, self.answer) if part is not None]
        return sum(HEAD.size + (part.size if isinstance(part, Span) else len(part)) for part in parts)

    def lie_at(self, spans: Sequence[Span]) -> None:
        """The records of needed() lie there now."""
        if self.ended is not None:
            self.answer = spans[0]
        else:
            self.asked, self.joins = spans[0], list(spans[1 : 1 + len(self.joins)])


def needed(entry: Entry, read: Callable[[Span | bytes | None], bytes]) -> list[bytes]:
    """The records that tell all of an entry, of those that `read` gives and short ones. Raises OSError as `read`."""
    if entry.ended is not None:
        return [read(entry.answer), *([] if entry.undelivered else [mark(Kind.DELIVERED, entry)])]
    sent = [sending(entry, entry.frames_sent)] if entry.frames_sent else []
    return [read(entry.asked), *map(read, entry.joins), *sent, *[mark(Kind.RESUMED, entry)] * entry.resumed]


def accepted(entry: Entry, asked: Asked) -> bytes:
    """The record of a job that was taken on."""
    head = {**_identity_head(entry), "op": asked.op, "seed": asked.seed, "priority": asked.priority}
    head |= {"topic_given": asked.topic_given, "series": asked.series}
    head |= {"ttl_s": asked.ttl_s, "at": _instant_head(asked.at)}
    return _encode(Kind.ACCEPTED, head, json.dumps(asked.fields).encode())  # a field may hold half a surrogate pair


def joined(entry: Entry, place: Place) -> bytes:
    """The record of another place for the answer."""
    return _encode(Kind.JOINED, {"n": entry.number, "place": _place_head(place)})


def sending(entry: Entry, frames: int) -> bytes:
    """The record of so many frames being out."""
    return _encode(Kind.SENDING, {"n": entry.number, "frames": frames})


def finished(entry: Entry, ended: Ended, payload: bytes, whole: bytes) -> bytes:
    """The record of an answer: its last frame as it is sent, and as JSON with all of its text where that is another."""
    head = {**_identity_head(entry), "status": ended.status, "code": ended.code, "retryable": ended.retryable}
    head |= {"content_type": ended.content_type, "user": ended.user, "ttl_s": ended.ttl_s}
    head |= {"at": _instant_head(ended.at), "payload": len(payload)}
    return _encode(Kind.FINISHED, head, payload if whole == payload else payload + whole)


def mark(kind: Kind, entry: Entry) -> bytes:
    """A record that has nothing to add to its kind."""
    return _encode(kind, {"n": entry.number})


def committed() -> bytes:
    """The record that makes count what was accepted before."""
    return _encode(Kind.COMMITTED, {})


def read_asked(body: bytes) -> Asked:
    """What an `accepted` record asks for."""
    _, head, data = _decode(body)
    return Asked(
        op=_typed(head["op"], str),
        fields=_typed(json.loads(data), dict),
        seed=_whole(head["seed"]),
        priority=_whole(head["priority"]),
        topic_given=_typed(head["topic_given"], bool),
        series=None if head["series"] is None else _typed(head["series"], str),
        ttl_s=_number(head["ttl_s"]),
        at=_instant(head["at"]),
    )


def read_answer(body: bytes) -> tuple[bytes, bytes]:
    """The last frame in a `finished` record, as it was sent and as JSON."""
    _, head, data = _decode(body)
    size = _whole(head["payload"])
    return data[:size], data[size:] or data


def read_back(records: Iterable[tuple[Span, bytes]]) -> tuple[dict[int, Entry], int]:
    """The entries that a file's records tell of, by number, and how many records could not be made out.

    A record of a newer daemon, or of an entry that is gone, is passed over. What was not committed is among the
    entries: it was not acknowledged, and must be withdrawn before anything else is committed.
    """
    entries: dict[int, Entry] = {}
    unknown = counting = 0  # entries below this number count
    for span, body in records:
        try:
            kind, head, _ = _decode(body)
            if kind is Kind.COMMITTED:
                counting = max(entries, default=0) + 1
            else:
                _apply(entries, kind, head, span)
        except UNREADABLE:
            unknown += 1
    for entry in entries.values():
        entry.committed = entry.ended is not None or entry.number < counting
    return entries, unknown


def _apply(entries: dict[int, Entry], kind: Kind, head: dict[str, Any], span: Span) -> None:
    number = head["n"]
    if kind is Kind.ACCEPTED:
        entries[number] = _entry(head)
        entries[number].asked = span
        return
    if kind is Kind.FINISHED:
        entry = _entry(head)
        entry.answer, entry.undelivered, entry.ended = span, len(entry.places), _ended(head)
        entries[number] = entry
        return
    entry = entries[number]
    if kind is Kind.JOINED:
        entry.places.append(_place(head["place"]))
        entry.joins.append(span)
    elif kind is Kind.SENDING:
        entry.frames_sent = _whole(head["frames"])
    elif kind is Kind.DELIVERED:
        entry.undelivered = 0
    elif kind is Kind.RESUMED:
        entry.resumed += 1
    elif kind is Kind.WITHDRAWN:
        del entries[number]


def _entry(head: dict[str, Any]) -> Entry:
    identity = Identity(
        principal=_typed(head["principal"], str),
        id=_typed(head["id"], str),
        id_given=_typed(head["given"], bool),
        fingerprint=bytes.fromhex(head["print"]),
        connection=_whole(head["connection"]),
        packet_id=_whole(head["packet"]),
    )
    first, *others = head["places"]
    places = [_place(place) for place in (first, *others)]
    return Entry(number=_whole(head["n"]), identity=identity, places=places)


def _ended(head: dict[str, Any]) -> Ended:
    return Ended(
        status=_whole(head["status"]),
        code=_typed(head["code"], str),
        retryable=_typed(head["retryable"], bool),
        content_type=_typed(head["content_type"], str),
        user=tuple((_typed(name, str), _typed(value, str)) for name, value in head["user"]),
        ttl_s=_number(head["ttl_s"]),
        at=_instant(head["at"]),
    )


def _identity_head(entry: Entry) -> dict[str, Any]:
    identity = entry.identity
    return {
        "n": entry.number,
        "principal": identity.principal,
        "id": identity.id,
        "given": identity.id_given,
        "print": identity.fingerprint.hex(),
        "connection": identity.connection,
        "packet": identity.packet_id,
        "places": [_place_head(place) for place in entry.places],
    }


def _place_head(place: Place) -> list[str | None]:
    return [place.topic, None if place.correlation is None else place.correlation.hex()]


def _place(head: list[Any]) -> Place:
    topic, correlation = head
    return Place(_typed(topic, str), None if correlation is None else bytes.fromhex(correlation))


def _instant(head: list[Any]) -> Instant:
    boot, up_s, wall_s = head
    return Instant(_typed(boot, str), _number(up_s), _number(wall_s))


def _typed(value: Any, kind: type[Typed]) -> Typed:
    """Another version's record may hold anything. Raises TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected, {type(value).__name__} found")
    return value


def _whole(value: Any) -> int:
    if not _INT64[0] <= _typed(value, int) < _INT64[1]:
        raise ValueError("a number out of all bounds")
    return int(value)


def _number(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError("a number out of all bounds")
    return float(value)


def _instant_head(at: Instant) -> list[Any]:
    return [at.boot, at.up_s, at.wall_s]


def _encode(kind: Kind, head: Mapping[str, Any], data: bytes = b"") -> bytes:
    text = encode_json(head)
    return _HEAD.pack(kind, len(text)) + text + data


def _decode(body: bytes) -> tuple[Kind, dict[str, Any], bytes]:
    kind, size = _HEAD.unpack_from(body)
    head = json.loads(body[_HEAD.size : _HEAD.size + size])
    return Kind(kind), head, body[_HEAD.size + size :]
