"""What form an answer has: bare text or frames, and which JSON Schema it follows.

OpenAI says so in `response_format`, Ollama in `format`, which is ours for text and frames too.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from edgebit.daemon.contract.messages import Format, Refusal, ResponseSchema

MODEL_SCHEMA = ResponseSchema(None)
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
TYPES = ("text", "json_object", "json_schema", "model_schema")


def read_format(fields: Mapping[str, Any]) -> Format:
    """How the answer is sent. Raises Refusal 400."""
    given = fields.get("format")
    if given in (None, "", "frames", "json") or isinstance(given, dict):
        return "json"
    if given == "text":
        return "text"
    raise Refusal(
        400,
        "unsupported",
        "format: 'text' gives bare text, 'frames' JSON frames; 'json' or a JSON Schema is what the answer must be",
    )


def read_response_schema(fields: Mapping[str, Any], compiled: Callable[[str], bytes]) -> ResponseSchema | None:
    """What the answer must be; None: any text. Raises Refusal 400, and what `compiled` raises.

    compiled: gives the program of a schema's JSON text, or raises Refusal
    """
    given = fields.get("format")
    wanted = _of_response_format(fields.get("response_format"))
    by_format: Any = given if isinstance(given, dict) else ANY_OBJECT if given == "json" else None
    if wanted is not None and by_format is not None and wanted != by_format:
        raise Refusal(400, "conflict", "format and response_format both say what the answer must be, and differ")
    schema = by_format if wanted is None else wanted
    if schema is None or isinstance(schema, ResponseSchema):
        return schema
    return ResponseSchema(compiled(json.dumps(schema)))


def _of_response_format(given: Any) -> Mapping[str, Any] | ResponseSchema | None:
    """A schema, the model's own, or None for any text."""
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if kind not in TYPES:
        raise Refusal(400, "unsupported", f"response_format is an object whose type is one of {', '.join(TYPES)}")
    if kind == "json_schema":
        body = given.get("json_schema")
        schema = body.get("schema") if isinstance(body, dict) else None
        if not isinstance(schema, dict):
            raise Refusal(400, "missing_field", "response_format.json_schema.schema is missing, or no object")
        return schema
    return {"text": None, "json_object": ANY_OBJECT, "model_schema": MODEL_SCHEMA}[kind]
