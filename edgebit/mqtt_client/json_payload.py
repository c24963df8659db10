"""The payload of a message as JSON."""

import json
from typing import Any


def parse_json(payload: bytes | bytearray) -> Any:
    """What a payload holds; None also where it could not be written again as JSON in UTF-8 (NaN, half a character)."""
    try:
        body = json.loads(payload)
        json.dumps([[body]], ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return body
