"""What goes through the daemon between broker and engine, as typed values: messages, addresses, requests, refusals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from edgebit.bundle.prompt_program import Message

Format = Literal["json", "text"]
Op = Literal["generate", "chat", "assist"]

PRIORITIES: Mapping[str, int] = MappingProxyType({"low": -1, "normal": 0, "high": 1})

# The broad class of a status, which scripts switch on; `code` says it finely.
TYPES: Mapping[int, str] = MappingProxyType(
    {
        400: "INVALID_INPUT",
        401: "NOT_ALLOWED",
        403: "NOT_ALLOWED",
        404: "NOT_FOUND",
        408: "EXPIRED",
        409: "CONFLICT",
        413: "INVALID_INPUT",
        415: "INVALID_INPUT",
        422: "INVALID_INPUT",
        429: "RATE_LIMIT_EXCEEDED",
        451: "CONTENT_FILTERED",
        499: "CANCELLED",
        500: "DEVICE_FAULT",
        503: "BUSY",
        505: "VERSION",
        507: "DEVICE_FAULT",
    }
)


class Refusal(Exception):
    """A request that is not done, in the words its sender reads: status and code as in docs/mqtt.md."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after_ms: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """`details` are more fields of the error body: queue_len, eta_ms, supported."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.details = dict(details or {})

    @property
    def type(self) -> str:
        """The broad class, in capitals."""
        return "RESPONSE_FILTERED" if self.code == "response_filtered" else TYPES[self.status]

    def telling(self, **details: Any) -> "Refusal":
        """The same with more fields of the error body, where it does not have them already."""
        return Refusal(
            self.status,
            self.code,
            str(self),
            retryable=self.retryable,
            retry_after_ms=self.retry_after_ms,
            details={**details, **self.details},
        )

    def body(self) -> dict[str, Any]:
        """The `error` object of a reply."""
        body: dict[str, Any] = {
            "status": self.status,
            "code": self.code,
            "type": self.type,
            "message": str(self),
            "retryable": self.retryable,
        }
        if self.retry_after_ms is not None:
            body["retry_after_ms"] = self.retry_after_ms
        return {**body, **self.details}


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One message as it came from the broker; the properties are None under MQTT 3.1.1."""

    topic: str
    payload: bytes
    received: float  # monotonic seconds
    retain: bool = False
    dup: bool = False
    mqtt5: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None
    content_type: str | None = None
    user: tuple[tuple[str, str], ...] = ()
    inside: bool = False  # from within the daemon itself, and not from the broker
    connection: int = 0  # the number of the connection it came on
    packet_id: int = 0  # the broker's own name for it, the same if it is sent again; 0 at QoS 0
    ack: Callable[[], None] = field(default=lambda: None, compare=False)  # it need not come again
    refusal: Refusal | None = None  # why it is not done, whatever it asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an answer goes, and until when anybody waits for it."""

    principal: str
    id: str
    id_given: bool  # by the caller, and so the same if the request is sent again
    topic: str
    topic_given: bool
    correlation: bytes | None
    deadline: float  # monotonic seconds
    series: str | None = None  # id_mode latest: the id as it was given; `id` is this one request's own


@dataclass(frozen=True, slots=True)
class ResponseSchema:
    """What an answer must be: one JSON value that a schema allows."""

    program: bytes | None  # the schema, compiled; None: the model's own


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """`generate`, `chat` and `assist`: a prompt as it stands, or messages for the model's template."""

    op: Op = "generate"
    prompt: str | None
    messages: tuple[Message, ...]
    sampling: Mapping[str, float]  # fields of SamplingParams that the caller or the configuration set
    seed: int
    max_tokens: int
    stop: tuple[str, ...]
    stream: bool
    format: Format
    priority: int = 0  # one of PRIORITIES' values; higher goes first
    ack: bool = False  # the caller wants to hear that the request was taken
    seed_given: bool = False  # by the caller, and not drawn
    cache: bool = True  # an answer that is known may be given; False: it is to be made anew
    session: str | None = None  # the caller's own name for a conversation that the device remembers
    response_schema: ResponseSchema | None = None
    adapter: str | None = None  # the name of one that is loaded
    adapter_sha256: str = ""  # of its file, once it was looked up: another one may have the name when it is begun


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One request of a batch: what it is when the fields common to all are put in."""

    op: str
    id: str
    fields: Mapping[str, Any]
    refusal: Refusal | None = None  # why it cannot be done; the others can


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """`batch`: requests that are answered each on its own, and then a summary."""

    items: tuple[BatchItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeRequest:
    """`tokenize`: text to token ids."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """`cancel`: ends the caller's own job `target`."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRequest:
    """`get`: what has become of the caller's own job `target`, and its text from `offset` on."""

    target: str
    offset: int  # characters
    limit: int | None  # characters; None: as many as fit into a packet


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAdapterRequest:
    """`load_adapter`: a part of an adapter's file, or all of it."""

    adapter: str
    data: bytes
    offset: int  # of the part, in bytes
    size: int  # of the whole file
    sha256: str  # of the whole file


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadAdapterRequest:
    """`unload_adapter`: it is not asked for any more, and leaves the disk."""

    adapter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """`ping`: are you there?"""


AdapterRequest = LoadAdapterRequest | UnloadAdapterRequest
Request = GenerateRequest | BatchRequest | TokenizeRequest | CancelRequest | GetRequest | PingRequest | AdapterRequest
