"""The fields of a payload: from its bytes to JSON, and from JSON to values of the right kind.

Whatever is wrong is a Refusal that names the field.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from edgebit.daemon.config.sections import Config
from edgebit.daemon.contract.messages import Incoming, Refusal

JSON_DEPTH_MAX = 16
# What a payload that is no JSON means.
PLAIN_TEXT = {
    "generate": "prompt",
    "chat": "prompt",
    "assist": "prompt",
    "tokenize": "text",
    "cancel": "id",
    "get": "id",
    "unload_adapter": "adapter",
}


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
    return {PLAIN_TEXT[op]: text} if op in PLAIN_TEXT and text else {}


def optional(fields: Mapping[str, Any], name: str, kinds: tuple[type, ...]) -> Any:
    """The value of a field of one of these kinds; None where it is not there, or null."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
        kinds = tuple(kind for kind in kinds if kind is not int or float not in kinds)  # a whole number is one too
        raise Refusal(400, "bad_field", f"{name} must be {' or '.join(words[kind] for kind in kinds)}")
    return value


def agreed(name: str, first: Any, second: Any) -> Any:
    """One of two places' value for the same thing; both may have it if they say the same."""
    if first is not None and second is not None and first != second:
        raise Refusal(400, "conflict", f"{name} is given twice, and differs")
    return second if first is None else first


def required_text(value: str | None, name: str) -> str:
    """The text, which must be there."""
    if not value:
        raise Refusal(400, "missing_field", f"{name} is missing or empty")
    return encodable(value, name)


def encodable(value: str, name: str) -> str:
    """The text, which must be text: JSON can write halves of surrogate pairs."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal(400, "bad_utf8", f"{name} holds half a surrogate pair at character {error.start}") from error
    return value


def number(fields: Mapping[str, Any], name: str, lowest: float, highest: float, default: float | None) -> float | None:
    """A number among the options."""
    value = option(fields, (name,), (int, float))
    if value is None:
        return default
    if not lowest <= value <= highest:
        raise Refusal(400, "bad_field", f"{name} must lie between {lowest:g} and {highest:g}")
    return float(value)


def whole(fields: Mapping[str, Any], name: str, lowest: int, highest: int, default: int | None) -> int | None:
    """A whole number among the options."""
    value = option(fields, (name,), (int,))
    if value is None:
        return default
    if not lowest <= value <= highest:
        raise Refusal(400, "bad_field", f"{name} must lie between {lowest} and {highest}")
    return int(value)


def option(fields: Mapping[str, Any], names: tuple[str, ...], kinds: tuple[type, ...]) -> Any:
    """A value under any of its names, in `options` as Ollama has it or at the top as OpenAI has it."""
    options = fields.get("options")
    if options is not None and not isinstance(options, dict):
        raise Refusal(400, "bad_field", "options must be an object")
    found: Any = None
    for source in (options or {}, fields):
        for name in names:
            found = agreed(name, found, optional(source, name, kinds))
    return found


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
