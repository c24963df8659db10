"""Answers on their way out: frames with a running number, put together from tokens, and a last one with count and hash.

Nobody but the caller's own topic hears them (topics.DeviceTopics.refusal), and none is retained.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from edgebit.daemon.contract.messages import Address, Format, Refusal

FLUSH_S = 0.080
FLUSH_TOKENS = 16
FLUSH_BYTES = 512
PACKET_MARGIN = 512  # topic aside: fixed header, properties and user properties of an answer
LATE_EXPIRY_S = 10  # how long the broker keeps an answer that came after its deadline

FrameKind = Literal["ack", "delta", "done", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message for the broker; properties are left out under MQTT 3.1.1."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    expiry_s: int | None = None
    correlation: bytes | None = None
    content_type: str = "application/json"
    user: tuple[tuple[str, str], ...] = ()
    gives_way: bool = False  # to answers, where too much waits for the broker
    delivered: Callable[[], None] | None = field(default=None, compare=False)  # the broker has it; be quick
    no_room: Callable[[], None] | None = field(default=None, compare=False)  # too much waits: it was dropped; be quick


class Publisher(Protocol):
    """Takes messages from any thread and sends them when it can."""

    @property
    def packet_max(self) -> int:
        """The largest packet the broker takes, in bytes; 0: any."""

    def publish(self, message: Outgoing) -> bool:
        """Send a message, or keep it until the broker is back; False where it had to be dropped."""


class AnswerRecord(Protocol):
    """Remembers what was said of a job, before it is said."""

    def sending(self, seq: int) -> None:
        """Frame `seq` of a stream, not the last one, is about to be sent."""

    def ending(self, last: Outgoing, refusal: Refusal | None, whole: Mapping[str, Any]) -> Sequence[Outgoing]:
        """Keep the last frame, why it is an error if it is one, and the frame as it is in JSON with all of its text.

        Gives what to send.
        """


def encode_json(body: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def expiry_s(left_s: float, *, last: bool) -> int:
    """How long the broker keeps a frame of an answer whose deadline is `left_s` away."""
    return max(math.ceil(left_s), LATE_EXPIRY_S if last else 1)


class AnswerWriter:
    """Sends one job's answer: deltas if the caller streams, then exactly one of done() and error()."""

    def __init__(
        self,
        publisher: Publisher,
        device: str,
        address: Address,
        *,
        stream: bool = False,
        format: Format = "json",
        chat: bool = False,
        seq: int = 0,
        record: AnswerRecord | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """chat: one whole answer is a `message` too; seq: frames that went out before, such as an ack.

        record: is told of every frame before it goes out
        """
        self._publisher = publisher
        self._device = device
        self._address = address
        self._stream = stream
        self._format = format
        self._chat = chat
        self._clock = clock
        self._seq = seq
        self.record = record
        self._pending = ""
        self._pending_tokens = 0
        self._flushed_at = -math.inf  # so the first piece goes out at once
        self._sha256 = hashlib.sha256()
        self._ended = False

    def ack(self, body: Mapping[str, Any]) -> None:
        """Say that the job was taken, to a caller who has asked to hear it; `body` tells of the queue before it."""
        if self._format == "json":
            self._publish(self._message("ack", encode_json({**self._head("ack"), **body}), 202))

    def push(self, piece: str) -> None:
        """Take what one token added to the text, whole characters only; it may be empty."""
        self._sha256.update(piece.encode())
        if not self._stream:
            return
        self._pending += piece
        self._pending_tokens += 1
        if (
            self._clock() - self._flushed_at >= FLUSH_S
            or self._pending_tokens >= FLUSH_TOKENS
            or len(self._pending.encode()) >= FLUSH_BYTES
        ):
            self._flush()

    def done(self, body: Mapping[str, Any], text: str | None = None) -> None:
        """The last message of an answer that came to its end; `text` is all of a generated text.

        A text too large for the broker is left out for a caller who streams; else what is too large is refused (413).
        """
        self._flush()
        last = {**self._head("done"), "done": True}
        if text is not None:
            last |= {"text_sha256": self._sha256.hexdigest(), "text": text}
            if self._chat and not self._stream:
                last["message"] = {"role": "assistant", "content": text}
        last.update(body)
        whole = dict(last)
        payload = self._last_payload(last, text)
        for spare in ("message", "text") if self._stream else ("message",):
            if spare in last and not self.fits(payload):
                del last[spare]
                payload = self._last_payload(last, text)
        if not self._stream and not self.fits(payload):
            words = f"the answer has {len(payload)} bytes, the broker takes packets of {self._publisher.packet_max}"
            words += ": get it in parts, or stream" if text is not None else ""
            self._fail(Refusal(413, "answer_too_large", words), {}, whole)
            return
        self._send_last("done", payload, None, whole)

    def _head(self, kind: FrameKind) -> dict[str, Any]:
        """What a frame begins with; who answers stands in the first one and the last, for callers of a pool."""
        return {"id": self._address.id, "seq": self._seq, "t": kind, "dev": self._device}

    def _last_payload(self, last: Mapping[str, Any], text: str | None) -> bytes:
        if self._format == "text":
            return b"" if self._stream or text is None else text.encode()
        return encode_json(last)

    def error(self, refusal: Refusal, body: Mapping[str, Any] | None = None) -> None:
        """The last message of a job that was refused, cancelled or failed; `body` tells how far it came."""
        self._flush()
        self._fail(refusal, body or {}, None)

    def _fail(self, refusal: Refusal, body: Mapping[str, Any], whole: Mapping[str, Any] | None) -> None:
        last = {**self._head("error"), "done": True, **body, "error": refusal.body()}
        text = f"[{refusal.status} {refusal.code}: {refusal}]"
        payload = text.encode() if self._format == "text" else encode_json(last)
        self._send_last("error", payload, refusal, whole or last)

    def _flush(self) -> None:
        while self._pending:
            piece = self._pending[: self.longest(self._pending, self._delta)]
            message = self._message("delta", self._delta(piece), 200)
            if self.record is not None:
                self.record.sending(self._seq)
            self._publish(message)
            self._pending = self._pending[len(piece) :]
        self._pending_tokens = 0

    def _delta(self, piece: str) -> bytes:
        if self._format == "text":
            return piece.encode()
        return encode_json({"id": self._address.id, "seq": self._seq, "t": "delta", "d": piece})

    def _send_last(self, kind: FrameKind, payload: bytes, refusal: Refusal | None, whole: Mapping[str, Any]) -> None:
        message = self._message(kind, payload, 200 if refusal is None else refusal.status, last=True)
        self._ended = True
        for copy in [message] if self.record is None else self.record.ending(message, refusal, whole):
            self._publish(copy)

    def _publish(self, message: Outgoing) -> None:
        self._publisher.publish(message)
        self._seq += 1
        self._flushed_at = self._clock()

    def _message(self, kind: FrameKind, payload: bytes, status: int, *, last: bool = False) -> Outgoing:
        if self._ended:
            raise AssertionError(f"job {self._address.id} was answered already, and now again: {kind}")
        return Outgoing(
            topic=self._address.topic,
            payload=payload,
            expiry_s=expiry_s(self._address.deadline - self._clock(), last=last),
            correlation=self._address.correlation,
            content_type="text/plain" if self._format == "text" else "application/json",
            user=(
                ("eb-status", str(status)),
                ("eb-id", self._address.id),
                ("eb-dev", self._device),
                ("eb-seq", str(self._seq)),
                ("eb-last", "1" if last else "0"),
            ),
        )

    def done_frame(self, body: Mapping[str, Any]) -> bytes:
        """What done() would send for this body."""
        return encode_json({**self._head("done"), "done": True, **body})

    def longest(self, text: str, encode: Callable[[str], bytes]) -> int:
        """How many characters of the text, at least one, make a payload that the broker takes."""
        if self.fits(encode(text)):
            return len(text)
        fitting, too_many = 1, len(text)
        while too_many - fitting > 1:
            middle = (fitting + too_many) // 2
            fitting, too_many = (middle, too_many) if self.fits(encode(text[:middle])) else (fitting, middle)
        return fitting

    def fits(self, payload: bytes) -> bool:
        """Whether the broker takes a message with this payload."""
        limit = self._publisher.packet_max
        return not limit or len(self._address.topic.encode()) + len(payload) + PACKET_MARGIN <= limit
