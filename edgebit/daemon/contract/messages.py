"""Requests as typed values: from a message's bytes and properties to what is asked, by whom, and where to answer.

Field names are Ollama's and OpenAI's. MQTT 5 properties and payload fields say the same things; the property wins, and
where both are there and differ the request is refused. Unknown fields are ignored (docs/mqtt.md).
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from edgebit.bundle.prompt_program import Message
from edgebit.daemon.config.sections import Config, DefaultsConfig
from edgebit.daemon.contract.topics import DeviceTopics, is_id

Format = Literal["json", "text"]

CORRELATION_MAX_BYTES = 64
JSON_DEPTH_MAX = 16
STOPS_MAX = 16
MESSAGES_MAX = 256
TTL_MAX_MS = 7 * 86_400_000
ROLES = ("system", "user", "assistant")
OPS = ("generate", "chat", "tokenize", "cancel", "ping")
LATER_OPS = ("embed", "batch", "get")  # part of the contract, not of this version


class Refusal(Exception):
    """A request that is not done, in the words its sender reads: status and code as in docs/mqtt.md."""

    def __init__(
        self, status: int, code: str, message: str, *, retryable: bool = False, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms

    def body(self) -> dict[str, Any]:
        """The `error` object of a reply."""
        body: dict[str, Any] = {
            "status": self.status,
            "code": self.code,
            "message": str(self),
            "retryable": self.retryable,
        }
        if self.retry_after_ms is not None:
            body["retry_after_ms"] = self.retry_after_ms
        return body


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


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """`generate` and `chat`: a prompt as it stands, or messages for the model's template."""

    prompt: str | None
    messages: tuple[Message, ...]
    sampling: Mapping[str, float]  # fields of SamplingParams that the caller or the configuration set
    seed: int
    max_tokens: int
    stop: tuple[str, ...]
    stream: bool
    format: Format


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeRequest:
    """`tokenize`: text to token ids."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """`cancel`: ends the caller's own job `target`."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """`ping`: are you there?"""


Request = GenerateRequest | TokenizeRequest | CancelRequest | PingRequest


def first_address(incoming: Incoming, principal: str, topics: DeviceTopics, config: Config) -> Address:
    """The address as the properties alone give it: good enough for refusing a payload that cannot be read.

    Never raises: what is wrong with the properties is for address_of() to say, to the default topic.
    """
    given = _property(incoming, "eb-id")
    job_id = given if given is not None and is_id(given) else None
    wanted = incoming.response_topic
    allowed = wanted is not None and topics.refusal(wanted, principal, config.replies.allowed_prefixes) is None
    name = job_id or secrets.token_hex(8)
    ttl_s = min(incoming.expiry_s or config.limits.default_ttl_s, config.limits.default_ttl_s)
    correlation = incoming.correlation
    return Address(
        principal=principal,
        id=name,
        id_given=job_id is not None,
        topic=wanted if wanted is not None and allowed else topics.reply(principal, name),
        topic_given=allowed,
        correlation=correlation if correlation and len(correlation) <= CORRELATION_MAX_BYTES else None,
        deadline=incoming.received + ttl_s,
    )


def read_fields(incoming: Incoming, op: str, config: Config) -> dict[str, Any]:
    """The payload as JSON fields; plain text becomes the one field that `op` is about.

    Raises Refusal: 413 too long, 415 content type, 400 not UTF-8 or not JSON, nested too deep, a key twice.
    """
    if len(incoming.payload) > config.limits.max_prompt_bytes:
        raise Refusal(
            413,
            "payload_too_large",
            f"the payload has {len(incoming.payload)} bytes, this device takes {config.limits.max_prompt_bytes}",
        )
    kind = (incoming.content_type or "").partition(";")[0].strip().lower()
    if kind not in ("", "application/json", "text/plain"):
        raise Refusal(415, "content_type", f"content type {kind!r}: send application/json or text/plain")
    try:
        text = incoming.payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, "bad_utf8", f"the payload is not UTF-8 at byte {error.start}") from error
    if kind == "application/json" or (not kind and text.lstrip()[:1] == "{"):
        return _read_json(text)
    names = {"generate": "prompt", "chat": "prompt", "tokenize": "text", "cancel": "id"}
    return {names[op]: text} if op in names and text else {}


def address_of(
    incoming: Incoming, principal: str, fields: Mapping[str, Any], topics: DeviceTopics, config: Config
) -> Address:
    """The address that properties and payload give together.

    Raises Refusal: 400 where they contradict each other, 403 for a response topic that is not the caller's own, 505 for
    another version of the contract.
    """
    field = _optional(fields, "ver", (str, int))
    version = _either("version", _property(incoming, "eb-ver"), None if field is None else str(field))
    if version not in (None, "1"):
        raise Refusal(505, "version", f"version {version[:16]!r} of the contract is not spoken here; supported: 1")
    job_id = _either("id", _property(incoming, "eb-id"), _optional(fields, "id", (str,)))
    if job_id is not None and not is_id(job_id):
        raise Refusal(400, "bad_id", "an id is 1 to 64 letters, digits, '_', '.', ':', '@' and '-'")
    wanted = _either("response topic", incoming.response_topic, _optional(fields, "reply_to", (str,)))
    if wanted is not None and (why := topics.refusal(wanted, principal, config.replies.allowed_prefixes)):
        raise Refusal(403, "response_topic", why)
    if incoming.correlation is not None and len(incoming.correlation) > CORRELATION_MAX_BYTES:
        raise Refusal(400, "bad_correlation", f"correlation data has at most {CORRELATION_MAX_BYTES} bytes")
    name = job_id or secrets.token_hex(8)
    return Address(
        principal=principal,
        id=name,
        id_given=job_id is not None,
        topic=wanted or topics.reply(principal, name),
        topic_given=wanted is not None,
        correlation=incoming.correlation or None,
        deadline=incoming.received + _ttl_s(incoming, fields, config),
    )


def read_request(
    op: str, fields: Mapping[str, Any], address: Address, config: Config, model_names: set[str]
) -> Request:
    """What is asked. Raises Refusal: 400 for what is missing, wrong or not supported, 404 for another model."""
    if op in LATER_OPS:
        raise Refusal(400, "unsupported", f"{op} is not supported by this version; it has {', '.join(OPS)}")
    if op not in OPS:
        raise Refusal(400, "unknown_op", f"there is no operation {op[:64]!r}; there are {', '.join(OPS)}")
    if op == "ping":
        return PingRequest()
    if op == "cancel":
        if not address.id_given:
            raise Refusal(400, "missing_field", "cancel needs the id of the job")
        return CancelRequest(target=address.id)
    model = _optional(fields, "model", (str,))
    if model and model not in model_names:
        raise Refusal(
            404, "model_not_found", f"model {model[:64]!r} is not on this device; it has {min(model_names)!r}"
        )
    if op == "tokenize":
        text = _either("text", _optional(fields, "text", (str,)), _optional(fields, "prompt", (str,)))
        return TokenizeRequest(text=_text(text, "text"))
    return _read_generate(op, fields, config)


def fingerprint(op: str, payload: bytes) -> bytes:
    """Tells a request that was sent again from another one under the same id."""
    return hashlib.sha256(op.encode() + b"\0" + payload).digest()


def _read_generate(op: str, fields: Mapping[str, Any], config: Config) -> GenerateRequest:
    for name in ("images", "tools", "logprobs", "suffix", "template", "context"):
        if fields.get(name):
            raise Refusal(400, "unsupported", f"{name} is not supported")
    messages = _messages(fields)
    prompt = _optional(fields, "prompt", (str,))
    system = _optional(fields, "system", (str,))
    raw = _optional(fields, "raw", (bool,)) or False
    if messages and prompt is not None:
        raise Refusal(400, "conflict", "prompt and messages are both there: send one")
    if op == "generate" and messages:
        raise Refusal(400, "bad_field", "generate takes a prompt; messages are for chat")
    if op == "chat" and raw:
        raise Refusal(400, "bad_field", "raw is for generate: chat always uses the model's template")
    if not messages:
        messages = (Message("user", _text(prompt, "prompt" if op == "generate" else "messages")),)
    if system:
        if raw:
            raise Refusal(400, "conflict", "system has no place in a raw prompt")
        messages = (Message("system", _text(system, "system")), *messages)
    return GenerateRequest(
        prompt=prompt if op == "generate" else None,
        messages=() if raw else messages,
        sampling=_sampling(fields, config.defaults),
        seed=_seed(fields),
        max_tokens=_max_tokens(fields, config),
        stop=_stop(fields),
        stream=_optional(fields, "stream", (bool,)) or False,
        format=_format(fields),
    )


def _messages(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    given = fields.get("messages")
    if given is None:
        return ()
    if not isinstance(given, list) or not 1 <= len(given) <= MESSAGES_MAX:
        raise Refusal(400, "bad_field", f"messages is a list of 1 to {MESSAGES_MAX} objects")
    messages = []
    for position, item in enumerate(given):
        where = f"messages[{position}]"
        if not isinstance(item, dict) or item.get("role") not in ROLES:
            raise Refusal(400, "bad_field", f"{where}.role must be one of {', '.join(ROLES)}")
        if not isinstance(item.get("content"), str):
            raise Refusal(400, "bad_field", f"{where}.content must be a string")
        messages.append(Message(item["role"], _encodable(item["content"], f"{where}.content")))
    return tuple(messages)


def _sampling(fields: Mapping[str, Any], defaults: DefaultsConfig) -> dict[str, float]:
    values: dict[str, float | None] = {
        "temperature": _number(fields, "temperature", 0, 10, defaults.temperature),
        "top_k": _whole(fields, "top_k", -1, 1 << 20, defaults.top_k),
        "top_p": _number(fields, "top_p", 0.001, 1, defaults.top_p),
        "min_p": _number(fields, "min_p", 0, 1, defaults.min_p),
        "repetition_penalty": _number(fields, "repeat_penalty", 0.01, 100, defaults.repetition_penalty),
        "repetition_window": _whole(fields, "repeat_last_n", -1, 65536, defaults.repetition_window),
    }
    if values["top_k"] == -1:
        values["top_k"] = 0
    if values["repetition_window"] == 0:  # Ollama: 0 looks back on nothing, -1 on everything
        values.update(repetition_window=None, repetition_penalty=1.0)
    elif values["repetition_window"] == -1:
        values["repetition_window"] = 65536
    return {name: value for name, value in values.items() if value is not None}


def _seed(fields: Mapping[str, Any]) -> int:
    """As asked for, or drawn; the answer tells it, so that any answer can be had again."""
    seed = _whole(fields, "seed", -(1 << 63), (1 << 64) - 1, None)
    return secrets.randbits(53) if seed is None else seed & (1 << 64) - 1


def _number(fields: Mapping[str, Any], name: str, lowest: float, highest: float, default: float | None) -> float | None:
    value = _option(fields, (name,), (int, float))
    if value is None:
        return default
    if not lowest <= value <= highest:
        raise Refusal(400, "bad_field", f"{name} must lie between {lowest:g} and {highest:g}")
    return float(value)


def _whole(fields: Mapping[str, Any], name: str, lowest: int, highest: int, default: int | None) -> int | None:
    value = _option(fields, (name,), (int,))
    if value is None:
        return default
    if not lowest <= value <= highest:
        raise Refusal(400, "bad_field", f"{name} must lie between {lowest} and {highest}")
    return int(value)


def _max_tokens(fields: Mapping[str, Any], config: Config) -> int:
    wanted = _option(fields, ("num_predict", "max_tokens", "max_completion_tokens"), (int,))
    if wanted is None:
        return config.defaults.max_tokens
    if wanted in (-1, -2):  # Ollama: without end, until the context is full
        return config.limits.max_tokens
    if not 1 <= wanted <= config.limits.max_tokens:
        raise Refusal(400, "bad_field", f"this device allows a max_tokens of 1 to {config.limits.max_tokens}")
    return int(wanted)


def _stop(fields: Mapping[str, Any]) -> tuple[str, ...]:
    given = _option(fields, ("stop",), (str, list))
    stops = [given] if isinstance(given, str) else given or []
    if len(stops) > STOPS_MAX or not all(isinstance(item, str) and 0 < len(item) <= 256 for item in stops):
        raise Refusal(
            400, "bad_field", f"stop is a string or a list of at most {STOPS_MAX}, each of 1 to 256 characters"
        )
    return tuple(_encodable(item, "stop") for item in stops)


def _format(fields: Mapping[str, Any]) -> Format:
    response_format = fields.get("response_format")
    if response_format not in (None, {"type": "text"}):
        raise Refusal(400, "unsupported", "response_format: only {'type': 'text'} is supported")
    given = fields.get("format")
    if given in (None, "", "frames"):
        return "json"
    if given == "text":
        return "text"
    raise Refusal(
        400, "unsupported", "format: 'text' gives bare text, 'frames' JSON frames; constraints are not supported"
    )


def _option(fields: Mapping[str, Any], names: tuple[str, ...], kinds: tuple[type, ...]) -> Any:
    """A value under any of its names, in `options` as Ollama has it or at the top as OpenAI has it."""
    options = fields.get("options")
    if options is not None and not isinstance(options, dict):
        raise Refusal(400, "bad_field", "options must be an object")
    found: Any = None
    for source in (options or {}, fields):
        for name in names:
            found = _either(name, found, _optional(source, name, kinds))
    return found


def _ttl_s(incoming: Incoming, fields: Mapping[str, Any], config: Config) -> float:
    ttl_ms = _optional(fields, "ttl_ms", (int,))
    if ttl_ms is not None and ttl_ms < 1:
        raise Refusal(408, "expired", "ttl_ms is not above 0: the request was late before it began")
    if incoming.expiry_s is not None:
        # The broker takes its own waiting time off the property, so it may only be the shorter one.
        if ttl_ms is not None and incoming.expiry_s * 1000 > ttl_ms + 999:
            raise Refusal(400, "conflict", "message expiry interval is longer than ttl_ms")
        return float(incoming.expiry_s)
    return min(ttl_ms, TTL_MAX_MS) / 1000 if ttl_ms is not None else float(config.limits.default_ttl_s)


def _read_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise Refusal(400, "bad_json", f"the JSON is nested deeper than {JSON_DEPTH_MAX}") from None
    except ValueError as error:
        mend = "; a plain text that begins with { needs content type text/plain"
        raise Refusal(400, "bad_json", f"the payload is not JSON: {error}"[:200] + mend) from error
    if not isinstance(value, dict):
        raise Refusal(400, "bad_json", "the payload must be a JSON object")
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > JSON_DEPTH_MAX:
            raise Refusal(400, "bad_json", f"the JSON is nested deeper than {JSON_DEPTH_MAX}")
        children = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        level = [child for child in children if isinstance(child, dict | list)]
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _property(incoming: Incoming, name: str) -> str | None:
    return next((value for key, value in incoming.user if key == name), None)


def _optional(fields: Mapping[str, Any], name: str, kinds: tuple[type, ...]) -> Any:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
        raise Refusal(400, "bad_field", f"{name} must be {' or '.join(words[kind] for kind in kinds)}")
    return value


def _either(name: str, first: Any, second: Any) -> Any:
    if first is not None and second is not None and first != second:
        raise Refusal(400, "conflict", f"{name} is given twice, and differs")
    return second if first is None else first


def _text(value: str | None, name: str) -> str:
    if not value:
        raise Refusal(400, "missing_field", f"{name} is missing or empty")
    return _encodable(value, name)


def _encodable(value: str, name: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal(400, "bad_utf8", f"{name} holds half a surrogate pair at character {error.start}") from error
    return value
