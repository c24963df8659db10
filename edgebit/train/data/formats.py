"""Formats of a record, told by its keys, and what each says as an example."""

import json
from typing import Any, Literal, get_args

from edgebit.bundle.prompt_program import Message
from edgebit.train.data.examples import Conversation, Example, RecordError, Text
from edgebit.train.data.fields import one_key, text_of
from edgebit.train.data.messages import read_messages

Format = Literal["text", "chat", "instruction", "io"]
FORMATS: tuple[Format, ...] = get_args(Format)

_LISTS = ("messages", "conversations")
_INPUTS = ("input", "context")  # what an instruction is about; it may be empty
_OUTPUTS = ("output", "response")
_PAIRS = (
    ("input", "output"), ("prompt", "completion"), ("prompt", "response"), ("question", "answer"),
)  # fmt: skip
_EXPECTED = (
    "text; messages or conversations; instruction and output or response; "
    + "; ".join(" and ".join(pair) for pair in _PAIRS)
)  # fmt: skip


def read_object(line: str) -> dict[str, Any]:
    """The JSON object in a line. Raises RecordError where there is none."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        hint = "an object may not go over several lines" if error.pos >= len(line.rstrip()) else "mend it there"
        raise RecordError("not JSON", f"not JSON: {error.msg} at character {error.pos + 1}: {hint}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError("not JSON", f"not JSON that can be read: {error}") from None
    if isinstance(value, list):
        raise RecordError("no object", "a JSON array: each line must be an object of its own (jq -c '.[]' makes them)")
    if not isinstance(value, dict):
        raise RecordError("no object", f"a JSON object is expected, not {json.dumps(value)[:40]}")
    return value


def possible_formats(record: dict[str, Any]) -> tuple[Format, ...]:
    """Every format whose keys the record has; `input` and `output` beside an instruction are the instruction's."""
    pairs = [pair for pair in _PAIRS if all(key in record for key in pair)]
    instruction = "instruction" in record
    has = {
        "text": "text" in record,
        "chat": any(key in record for key in _LISTS),
        "instruction": instruction,
        "io": any(not (instruction and pair[0] in _INPUTS) for pair in pairs),
    }
    return tuple(format for format in FORMATS if has[format])


def format_of(record: dict[str, Any]) -> Format:
    """The one format it can be. Raises RecordError where there is none, or more than one."""
    formats = possible_formats(record)
    if len(formats) == 1:
        return formats[0]
    keys = ", ".join(map(repr, record)) or "no keys"
    if not formats:
        raise RecordError("of no format", f"has {keys[:200]}; expected are {_EXPECTED}. Rename the keys")
    choice = " or ".join(f"--format {format}" for format in formats)
    raise RecordError("of several formats", f"has {keys[:200]}, so it may be {' or '.join(formats)}. Say {choice}")


def read_example(record: dict[str, Any], format: Format) -> Example:
    """What a record of that format says. Raises RecordError naming the key that is missing or wrong."""
    if format == "text":
        return Text(text_of(record, "text"))
    if format == "chat":
        return read_messages(record, one_key(record, _LISTS))
    if format == "instruction":
        asked = text_of(record, "instruction")
        given = [key for key in _INPUTS if record.get(key)]
        if given and (about := text_of(record, one_key(record, given), empty=True)).strip():
            asked = f"{asked}\n\n{about}"
        answer = text_of(record, one_key(record, _OUTPUTS))
    else:
        pair = _pair(record)
        asked, answer = text_of(record, pair[0]), text_of(record, pair[1])
    turns = (Message("user", asked), Message("assistant", answer))
    system = text_of(record, "system", empty=True) if record.get("system") else ""
    return Conversation((Message("system", system), *turns) if system.strip() else turns)


def _pair(record: dict[str, Any]) -> tuple[str, str]:
    pairs = [pair for pair in _PAIRS if all(key in record for key in pair)]
    if len(pairs) > 1:
        named = ", ".join(" and ".join(map(repr, pair)) for pair in pairs)
        raise RecordError("keys that exclude each other", f"has {named}: which of them is meant? Take one pair out")
    if not pairs:
        named = ", ".join(" and ".join(map(repr, pair)) for pair in _PAIRS)
        raise RecordError("no pair", f"has none of the pairs {named}")
    return pairs[0]
