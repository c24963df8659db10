"""The JSON files beside a tokenizer."""

from pathlib import Path
from typing import Any

from edgebit.checkpoint.json_text import read_json_text
from edgebit.errors import TokenizerError


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file."""
    try:
        data = read_json_text(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise TokenizerError(f"{path}: a JSON object is expected, not {type(data).__name__}")
    return data
