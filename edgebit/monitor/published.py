"""What anybody may have published, read so that nothing of it can harm: bounded figures, words and bodies."""

import json
import math
from typing import Any

PAYLOAD_MAX = 65536  # bytes; a longer one is none of a daemon's
FIGURE_MAX = 1e12  # more is nothing that a device measures, and would not fit a column
WORDS_MAX = 200  # characters
ITEMS_MAX = 64  # that are looked at, of a list or an object


def body_of(payload: bytes) -> dict[str, Any] | None:
    """The JSON object in a payload; None where it is too long, or is something else."""
    if len(payload) > PAYLOAD_MAX:
        return None
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def figure(value: Any) -> float | None:
    """A finite number; None for anything else, true and false too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -FIGURE_MAX <= value <= FIGURE_MAX:
        return None
    return float(value) if math.isfinite(value) else None


def flag(value: Any) -> float | None:
    """1 or 0 for true and false, or for a number above 0 and 0."""
    if isinstance(value, bool):
        return float(value)
    number = figure(value)
    return None if number is None else float(number > 0)


def words(value: Any, limit: int = WORDS_MAX) -> str:
    r"""A text in one line of printable characters, others as \x1b or \u202e; empty for anything but a text."""
    if not isinstance(value, str):
        return ""
    shown = "".join(char if char.isprintable() else _escaped(char) for char in value[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list, at most ITEMS_MAX; none for anything but a list."""
    return [item for item in value[:ITEMS_MAX] if isinstance(item, dict)] if isinstance(value, list) else []


def inside(body: Any, *path: str) -> Any:
    """What stands at the path of names in nested objects; None where it is not there."""
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
