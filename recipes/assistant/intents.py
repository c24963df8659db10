"""The calls the assistant can make: their slots, the answer that carries one, the JSON Schema of all answers."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

NONE = "none"  # the intent of a line that is out of the field

Call = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Intent:
    """One kind of call: its slots in the order they are written, and the sentence that is said with it."""

    name: str
    slots: tuple[str, ...]
    say: str
    polite: bool


@cache
def tables() -> dict[str, Any]:
    """The content of intents.toml."""
    return tomllib.loads((DATA / "intents.toml").read_text())


@cache
def intents() -> dict[str, Intent]:
    """All intents by name, in the order of intents.toml."""
    return {
        name: Intent(name, tuple(row.get("slots", ())), row["say"], row.get("polite", False))
        for name, row in tables()["intent"].items()
    }


def with_article(name: str) -> str:
    """The name as a sentence has it: 'the kitchen lamp', but 'all lamps', 'everything'; home is 'the house'."""
    return name if name.startswith(("all ", "everything")) else f"the {'house' if name == 'home' else name}"


def say(call: Call, known: Mapping[str, Intent] | None = None) -> str:
    """The sentence that goes with a call; `known`: the intents there are, by default those of intents()."""
    said = {f"the_{slot}": with_article(str(value)) for slot, value in call.items()}
    return (known or intents())[str(call["intent"])].say.format(**call, **said)


def answer(call: Call, known: Mapping[str, Intent] | None = None) -> str:
    """What the model writes for a call: one JSON object without white space between its parts."""
    return json.dumps({**call, "say": say(call, known)}, separators=(",", ":"), ensure_ascii=False)


def slot_schema(slot: str) -> dict[str, Any]:
    """The JSON Schema of a slot's value."""
    row = tables()["slot"][slot]
    if "enum" in row:
        return {"enum": row["enum"]}
    if "maximum" in row:
        return {"type": "integer", **row}
    return {"type": "string", "minLength": 1, **row}


def intent_schema(intent: Intent) -> dict[str, Any]:
    """The JSON Schema of the answers of one intent."""
    slots = {slot: slot_schema(slot) for slot in intent.slots}
    fixed = "{" not in intent.say
    said = {"const": intent.say} if fixed else {"type": "string", "minLength": 1, "maxLength": 160}
    properties = {"intent": {"const": intent.name}, **slots, "say": said}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def response_schema(known: Mapping[str, Intent] | None = None) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every answer follows of a model that makes the calls of these intents."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Answer of the edgebit assistant",
        "anyOf": [intent_schema(intent) for intent in (known or intents()).values()],
    }
