"""What an answer must be, from the command line to the field of a request."""

from pathlib import Path
from typing import Any

import click

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema import parse_schema


def response_format_of(schema: str) -> dict[str, Any]:
    """`json`: any object; `model`: the model's own schema; else a file with a JSON Schema. Raises BadParameter."""
    if schema == "json":
        return {"type": "json_object"}
    if schema == "model":
        return {"type": "model_schema"}
    try:
        content = parse_schema(Path(schema).read_bytes())
    except OSError as error:
        words = f"{schema} cannot be read: {error.strerror}. Give a file with a JSON Schema, json, or model"
        raise click.BadParameter(words, param_hint="--schema") from error
    except SchemaError as error:
        raise click.BadParameter(f"{schema}: {error}", param_hint="--schema") from error
    if not isinstance(content, dict):
        raise click.BadParameter(f"{schema} holds no JSON Schema: it is no object", param_hint="--schema")
    return {"type": "json_schema", "json_schema": {"schema": content}}
