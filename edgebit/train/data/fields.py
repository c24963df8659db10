"""Keys of a record and their texts. Raises RecordError, which says what is wrong with which."""

import json
from collections.abc import Sequence
from typing import Any

from edgebit.train.data.examples import RecordError


def check_text(text: str, what: str, *, empty: bool = False) -> str:
    """The text as it is. Raises RecordError where it is empty or cannot be a text; `what` it is."""
    if not empty and not text.strip():
        raise RecordError("empty text", f"{what} is empty. Fill it in, or leave the record out")
    if "\0" in text:
        raise RecordError("NUL character", f"{what} holds a NUL character. Take it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = text[error.start]
        raise RecordError(
            "half a surrogate pair", f"{what} holds \\u{ord(at):04x}, half a surrogate pair: no text. Take it out"
        ) from None
    return text


def text_of(record: dict[str, Any], key: str, *, empty: bool = False) -> str:
    """The text at `key`. Raises RecordError where there is none."""
    if key not in record:
        keys = ", ".join(map(repr, record)) or "no keys"
        raise RecordError(f"no {key}", f"{key!r} is missing: it has {keys[:200]}")
    value = record[key]
    if not isinstance(value, str):
        raise RecordError(f"{key} is no text", f"{key!r} must be a text, not {json.dumps(value)[:40]}")
    return check_text(value, repr(key), empty=empty)


def one_key(record: dict[str, Any], keys: Sequence[str]) -> str:
    """The one of `keys` that the record has. Raises RecordError where it has none or several."""
    present = [key for key in keys if key in record]
    if len(present) > 1:
        named = " and ".join(map(repr, present))
        raise RecordError("keys that exclude each other", f"has {named}, which mean the same. Take one of them out")
    if not present:
        raise RecordError(f"no {keys[0]}", f"{' or '.join(map(repr, keys))} is missing")
    return present[0]
