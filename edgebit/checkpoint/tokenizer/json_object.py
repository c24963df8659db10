"""The JSON files beside a tokenizer."""

import json
from pathlib import Path
from typing import Any

from edgebit.errors import TokenizerError


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise TokenizerError(f"{path}: a JSON object is expected, not {type(data).__name__}")
    return data
