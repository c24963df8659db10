"""What an answer must be, from the command line to the field of a request."""

import json
from pathlib import Path
from typing import Any

import click


def response_format_of(schema: str) -> dict[str, Any]:
    """`json`: any object; `model`: the model's own schema; else a file with a JSON Schema. Raises BadParameter."""
    if schema == "json":
        return {"type": "json_object"}
    if schema == "model":
        return {"type": "model_schema"}
    try:
        content = json.loads(Path(schema).read_text(encoding="utf-8"))
    except OSError as error:
        words = f"{schema} cannot be read: {error.strerror}. Give a file with a JSON Schema, json, or model"
        raise click.BadParameter(words, param_hint="--schema") from error
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{schema} is no JSON: {error}", param_hint="--schema") from error
    if not isinstance(content, dict):
        raise click.BadParameter(f"{schema} holds no JSON Schema: it is no object", param_hint="--schema")
    return {"type": "json_schema", "json_schema": {"schema": content}}
