"""What is asked: from fields under Ollama's and OpenAI's names to a typed request.

What would change the answer and is not there is refused; unknown fields are ignored (docs/mqtt.md).
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from edgebit.bundle.prompt_program import Message
from edgebit.daemon.config.sections import Config, DefaultsConfig
from edgebit.daemon.contract.adapter_requests import read_adapter_name, read_load_adapter, read_unload_adapter
from edgebit.daemon.contract.addressing import user_property
from edgebit.daemon.contract.batch import read_batch
from edgebit.daemon.contract.fields import agreed, encodable, number, option, optional, required_text, whole
from edgebit.daemon.contract.messages import (
    PRIORITIES,
    Address,
    CancelRequest,
    GenerateRequest,
    GetRequest,
    Incoming,
    Op,
    PingRequest,
    Refusal,
    Request,
    TokenizeRequest,
)
from edgebit.daemon.contract.response_format import MODEL_SCHEMA, read_format, read_response_schema
from edgebit.daemon.contract.topics import is_id

ADAPTER_OPS = ("load_adapter", "unload_adapter")
OPS = ("generate", "chat", "assist", "tokenize", "batch", *ADAPTER_OPS, "cancel", "get", "ping")
OWN_OPS = ("history", "health")  # what other parts of the daemon answer at once: nothing of them is read here
ALL_OPS = (*OPS, *OWN_OPS)
STOPS_MAX = 16
MESSAGES_MAX = 256
PARTS_MAX = 64
# An assistant hears one line at a time, says one thing, and nothing of it before it is complete.
NOT_FOR_ASSIST = ("messages", "system", "raw", "session", "stream", "response_format")
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
LOGPROBS = ("logprobs", "top_logprobs")
UNSUPPORTED = (
    "images",
    "tools",
    "functions",
    "suffix",
    "template",
    "context",
    "logit_bias",
    "echo",
    "think",
    *LOGPROBS,
)
# Options that are there elsewhere, and the one value with which they do nothing.
UNSUPPORTED_OPTIONS: dict[str, float] = {
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "mirostat": 0,
    "typical_p": 1,
    "n": 1,
    "best_of": 1,
}

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a request is held against."""

    names: frozenset[str]  # what it may call the model
    ctx_len: int  # tokens


def read_request(
    op: str,
    fields: Mapping[str, Any],
    address: Address,
    config: Config,
    model: ModelFacts | None,
    compiled: Callable[[str], bytes],
    incoming: Incoming | None = None,
) -> Request:
    """What is asked; model: None while it is not loaded; incoming: whose properties may say more.

    compiled: gives the program of a schema's JSON text, or raises Refusal

    Raises Refusal: 400 for what is missing, wrong or not supported, 404 for another model.
    """
    if op == "embed":
        raise Refusal(400, "not_supported_by_model", "this model decodes text; it has no embeddings of any use")
    if op not in OPS:
        raise Refusal(400, "unknown_op", f"there is no operation {op[:64]!r}; there are {', '.join(ALL_OPS)}")
    if op == "ping":
        return PingRequest()
    if op in ("cancel", "get"):
        if not address.id_given and address.series is None:
            raise Refusal(400, "missing_field", f"{op} needs the id of the job")
        target = address.series or address.id
        return CancelRequest(target=target) if op == "cancel" else _read_get(fields, target)
    if op == "batch":
        return read_batch(fields, address, config.limits.max_batch)
    if op == "load_adapter":
        return read_load_adapter(fields, config.adapters.max_mib << 20)
    if op == "unload_adapter":
        return read_unload_adapter(fields)
    _check_model(fields, model)
    if op == "tokenize":
        text = agreed("text", optional(fields, "text", (str,)), optional(fields, "prompt", (str,)))
        return TokenizeRequest(text=required_text(text, "text"))
    return _read_generate(cast(Op, op), fields, config, compiled, incoming)


def fingerprint(op: str, payload: bytes) -> bytes:
    """Tells a request that was sent again from another one under the same id."""
    return hashlib.sha256(op.encode() + b"\0" + payload).digest()


def _check_model(fields: Mapping[str, Any], model: ModelFacts | None) -> None:
    name = optional(fields, "model", (str,))
    if model is None:
        return
    if name and name.removesuffix(":latest") not in model.names:
        called = sorted(model.names, key=lambda one: (_SHA256.fullmatch(one) is not None, one))
        raise Refusal(404, "model_not_found", f"model {name[:64]!r} is not on this device; it has {called[0]!r}")
    wanted = option(fields, ("num_ctx",), (int,))
    if wanted is not None and wanted > model.ctx_len:
        raise Refusal(400, "bad_field", f"num_ctx: this device's context has {model.ctx_len} tokens")


def _read_get(fields: Mapping[str, Any], target: str) -> GetRequest:
    offset = optional(fields, "offset", (int,)) or 0
    limit = optional(fields, "limit", (int,))
    if offset < 0 or (limit is not None and limit < 1):
        raise Refusal(400, "bad_field", "offset is 0 or more and limit 1 or more, both in characters")
    return GetRequest(target=target, offset=offset, limit=limit)


def _read_generate(
    op: Op,
    fields: Mapping[str, Any],
    config: Config,
    compiled: Callable[[str], bytes],
    incoming: Incoming | None,
) -> GenerateRequest:
    _refuse_unsupported(fields)
    if op == "assist":
        _refuse_beside_a_line(fields)
    messages = _messages(fields)
    prompt = optional(fields, "prompt", (str,))
    system = optional(fields, "system", (str,))
    raw = optional(fields, "raw", (bool,)) or False
    if messages and prompt is not None:
        raise Refusal(400, "conflict", "prompt and messages are both there: send one")
    if op == "generate" and messages:
        raise Refusal(400, "bad_field", "generate takes a prompt; messages are for chat")
    if op == "chat" and raw:
        raise Refusal(400, "bad_field", "raw is for generate: chat always uses the model's template")
    if not messages:
        messages = (Message("user", required_text(prompt, "messages" if op == "chat" else "prompt")),)
    if system:
        if raw:
            raise Refusal(400, "conflict", "system has no place in a raw prompt")
        messages = (Message("system", required_text(system, "system")), *messages)
    stop = _stop(fields)
    response_schema = MODEL_SCHEMA if op == "assist" else read_response_schema(fields, compiled)
    if stop and response_schema is not None:
        raise Refusal(400, "conflict", "stop would end the answer within the JSON that its schema asks for: send one")
    return GenerateRequest(
        op=op,
        prompt=prompt if op == "generate" else None,
        messages=() if raw else messages,
        sampling=_sampling(fields, config.defaults),
        seed=_seed(fields),
        max_tokens=_max_tokens(fields, config),
        stop=stop,
        stream=optional(fields, "stream", (bool,)) or False,
        format=read_format(fields),
        priority=_priority(fields, incoming),
        ack=optional(fields, "ack", (bool,)) or False,
        seed_given=option(fields, ("seed",), (int,)) is not None,
        cache=optional(fields, "cache", (bool,)) is not False,
        session=_session(fields, config, raw=raw),
        response_schema=response_schema,
        adapter=read_adapter_name(fields),
    )


def _refuse_beside_a_line(fields: Mapping[str, Any]) -> None:
    given = [name for name in NOT_FOR_ASSIST if fields.get(name)]
    if fields.get("format") not in (None, "", "frames", "text"):
        given.append("format")
    if given:
        words = f"{given[0]} is not for assist: it takes one line as its prompt, and answers in one message"
        raise Refusal(400, "unsupported", words)


def _refuse_unsupported(fields: Mapping[str, Any]) -> None:
    for name in UNSUPPORTED:
        if fields.get(name):
            raise Refusal(400, "unsupported", f"{name} is not supported")
    for name, neutral in UNSUPPORTED_OPTIONS.items():
        if option(fields, (name,), (int, float)) not in (None, neutral):
            raise Refusal(400, "unsupported", f"{name} is not supported")


def _priority(fields: Mapping[str, Any], incoming: Incoming | None) -> int:
    given = user_property(incoming, "eb-prio") if incoming is not None else None
    name = agreed("priority", given, optional(fields, "priority", (str,)))
    if name is not None and name not in PRIORITIES:
        raise Refusal(400, "bad_field", f"priority is one of {', '.join(PRIORITIES)}")
    return PRIORITIES[name or "normal"]


def _messages(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    given = fields.get("messages")
    if given is None:
        return ()
    if not isinstance(given, list) or not 1 <= len(given) <= MESSAGES_MAX:
        raise Refusal(400, "bad_field", f"messages is a list of 1 to {MESSAGES_MAX} objects")
    messages = []
    for position, item in enumerate(given):
        where = f"messages[{position}]"
        role = item.get("role") if isinstance(item, dict) else None
        if not isinstance(role, str) or role not in ROLES:
            raise Refusal(400, "bad_field", f"{where}.role must be one of {', '.join(ROLES)}")
        messages.append(Message(ROLES[role], encodable(_content(item.get("content"), where), f"{where}.content")))
    return tuple(messages)


def _content(given: Any, where: str) -> str:
    """A message's text: as it stands, or in parts as OpenAI's clients send it."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not 1 <= len(given) <= PARTS_MAX:
        raise Refusal(400, "bad_field", f"{where}.content must be a string")
    for part in given:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Refusal(400, "unsupported", f"{where}.content: only parts of type text are supported")
    return "".join(part["text"] for part in given)


def _sampling(fields: Mapping[str, Any], defaults: DefaultsConfig) -> dict[str, float]:
    values: dict[str, float | None] = {
        "temperature": number(fields, "temperature", 0, 10, defaults.temperature),
        "top_k": whole(fields, "top_k", -1, 1 << 20, defaults.top_k),
        "top_p": number(fields, "top_p", 0.001, 1, defaults.top_p),
        "min_p": number(fields, "min_p", 0, 1, defaults.min_p),
        "repetition_penalty": number(fields, "repeat_penalty", 0.01, 100, defaults.repetition_penalty),
        "repetition_window": whole(fields, "repeat_last_n", -1, 65536, defaults.repetition_window),
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
    seed = whole(fields, "seed", -(1 << 63), (1 << 64) - 1, None)
    return secrets.randbits(53) if seed is None else seed & (1 << 64) - 1


def _max_tokens(fields: Mapping[str, Any], config: Config) -> int:
    wanted = option(fields, ("num_predict", "max_tokens", "max_completion_tokens"), (int,))
    if wanted is None:
        return config.defaults.max_tokens
    if wanted in (-1, -2):  # Ollama: without end, until the context is full
        return config.limits.max_tokens
    if not 1 <= wanted <= config.limits.max_tokens:
        raise Refusal(400, "bad_field", f"this device allows a max_tokens of 1 to {config.limits.max_tokens}")
    return int(wanted)


def _session(fields: Mapping[str, Any], config: Config, *, raw: bool) -> str | None:
    name: str | None = optional(fields, "session", (str,))
    if not name:
        return None
    if not is_id(name):
        raise Refusal(400, "bad_field", "session is 1 to 64 letters, digits, '_', '.', ':', '@' and '-'")
    if raw:
        raise Refusal(400, "conflict", "a raw prompt belongs to no session: sessions use the model's template")
    if not config.serving.sessions_max:
        raise Refusal(400, "unsupported", "this device remembers no sessions")
    return name


def _stop(fields: Mapping[str, Any]) -> tuple[str, ...]:
    given = option(fields, ("stop",), (str, list))
    stops = [given] if isinstance(given, str) else given or []
    if len(stops) > STOPS_MAX or not all(isinstance(item, str) and 0 < len(item) <= 256 for item in stops):
        raise Refusal(
            400, "bad_field", f"stop is a string or a list of at most {STOPS_MAX}, each of 1 to 256 characters"
        )
    return tuple(encodable(item, "stop") for item in stops)
