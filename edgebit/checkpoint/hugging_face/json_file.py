"""The JSON files beside the weights."""

from pathlib import Path
from typing import Any

from edgebit.checkpoint.json_text import read_json_text
from edgebit.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError where there is none."""
    try:
        value = read_json_text(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read: {error.strerror}. Is {path.parent} a checkpoint's folder?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: is no JSON object")
    return value
