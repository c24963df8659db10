"""The JSON files of a checkpoint, read within bounds."""

import json
from pathlib import Path
from typing import Any

from edgebit.bundle.lfs_pointer import LFS_POINTER, is_lfs_pointer

MAX_JSON_BYTES = 36_000_000  # Gemma 3's tokenizer.json has 33.4 million; values take up to 24 times as much memory


def read_json_text(path: Path) -> Any:
    """The value in a JSON file. Raises OSError, ValueError where it is no JSON or too large, RecursionError."""
    with path.open("rb") as file:
        if is_lfs_pointer(file):
            raise ValueError(f"it {LFS_POINTER}")
        text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it has more than {MAX_JSON_BYTES} bytes, which are the limit")
    return json.loads(text)
