"""What the model wrote, read as a call: whether it is JSON, follows the schema, and says what its call says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipes.assistant.intents import NONE, Call, Intent, intents, say, slot_schema


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; `call` is None where it is no call of ours."""

    text: str
    call: Call | None
    is_json: bool
    says_its_call: bool

    @property
    def intent(self) -> str:
        """The name of the call, or '(no call)'."""
        return "(no call)" if self.call is None else str(self.call["intent"])

    @property
    def refuses(self) -> bool:
        """Whether it says that the line is out of the field."""
        return self.intent == NONE


def read_reply(text: str, known: Mapping[str, Intent] | None = None) -> Reply:
    """Read the text of a model that makes the calls of these intents, by default those of the assistant."""
    try:
        content = json.loads(text)
    except ValueError:
        return Reply(text, None, is_json=False, says_its_call=False)
    if not isinstance(content, dict) or not follows_schema(content, known or intents()):
        return Reply(text, None, is_json=isinstance(content, dict), says_its_call=False)
    call = {slot: value for slot, value in content.items() if slot != "say"}
    return Reply(text, call, is_json=True, says_its_call=content["say"] == say(call, known))


def reply_of(call: Call) -> Reply:
    """The answer of a baseline, which makes calls and writes no text."""
    return Reply("", call, is_json=True, says_its_call=True)


def follows_schema(content: Mapping[str, Any], known: Mapping[str, Intent]) -> bool:
    """Whether the object is an answer of intents.response_schema(known)."""
    intent = known.get(content["intent"]) if isinstance(content.get("intent"), str) else None
    if intent is None or set(content) != {"intent", *intent.slots, "say"} or not isinstance(content["say"], str):
        return False
    return all(_fits(content[slot], slot_schema(slot)) for slot in intent.slots)


def _fits(value: object, schema: dict[str, Any]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    if schema["type"] == "integer":
        return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
    return isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]
