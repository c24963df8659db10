"""Conversations as lists: OpenAI's `messages` of role and content, ShareGPT's `conversations` of from and value."""

import json
from typing import Any

from edgebit.bundle.prompt_program import Message
from edgebit.train.data.examples import Conversation, RecordError
from edgebit.train.data.fields import check_text, one_key, text_of

_ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant",
}  # fmt: skip
_TOOLS = ("tools", "functions")
_CALLS = ("tool_calls", "function_call")


def read_messages(record: dict[str, Any], key: str) -> Conversation:
    """The conversation in the list at `key`. Raises RecordError naming the message that is wrong."""
    for tools in _TOOLS:
        if record.get(tools):
            raise RecordError("tools", f"has {tools!r}, which no prompt program can write. Write the call as content")
    entries = record[key]
    if not isinstance(entries, list):
        raise RecordError(f"{key} is no list", f"{key!r} must be a list of messages, not {json.dumps(entries)[:40]}")
    if not entries:
        raise RecordError("no messages", f"{key!r} is empty: a user's message and an answer are the least")
    messages = [_message(entry, f"message {place}") for place, entry in enumerate(entries, 1)]
    given = [place for place, entry in enumerate(entries) if _is_given(entry, messages[place], f"message {place + 1}")]
    if record.get("system"):
        if messages[0].role == "system":
            raise RecordError("two system texts", "has 'system' beside a system message. Take one of them out")
        messages.insert(0, Message("system", text_of(record, "system")))
        given = [place + 1 for place in given]
    _check_order(messages, given)
    return Conversation(tuple(messages), frozenset(given))


def _message(entry: Any, what: str) -> Message:
    if not isinstance(entry, dict):
        raise RecordError("a message is no object", f"{what} must be an object, not {json.dumps(entry)[:40]}")
    for call in _CALLS:
        if entry.get(call):
            raise RecordError("tools", f"{what} has {call!r}, which no prompt program can write. Write it as content")
    try:
        role_key, content_key = one_key(entry, ("role", "from")), one_key(entry, ("content", "value"))
        role = text_of(entry, role_key)
    except RecordError as error:
        raise error.at(what) from None
    if role not in _ROLES:
        raise RecordError(f"role {role[:20]}", f"{what} has role {role[:40]!r}: {', '.join(_ROLES)} are read")
    return Message(_ROLES[role], _content(entry[content_key], f"{content_key!r} of {what}"))


def _content(content: Any, what: str) -> str:
    """A text, or OpenAI's list of parts that are texts."""
    if isinstance(content, list) and content:
        if not all(_is_text(part) for part in content):
            raise RecordError(
                "content is no text", f"{what} has a part that is no text: pictures and sounds are not read"
            )
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise RecordError("content is no text", f"{what} must be a text, not {json.dumps(content)[:40]}")
    return check_text(content, what)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _is_given(entry: dict[str, Any], message: Message, what: str) -> bool:
    """Whether it is an answer of weight 0, which is not learnt (OpenAI's fine-tuning format)."""
    weight = entry.get("weight", 1)
    if weight not in (0, 1) or isinstance(weight, bool):
        raise RecordError("weight", f"'weight' of {what} must be 0 or 1, not {json.dumps(weight)[:40]}")
    if weight == 0 and message.role != "assistant":
        raise RecordError("weight", f"{what} has weight 0, and only an assistant's is learnt at all. Take it out")
    return bool(weight == 0)


def _check_order(messages: list[Message], given: list[int]) -> None:
    """Raise RecordError where nothing is learnt, or an answer has no question. The rest is the template's to say."""
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise RecordError("no answer", "no message is an assistant's, so there is nothing to learn. Add the answer")
    if len(answers) == len(given):
        raise RecordError("no answer", "every assistant's message has weight 0, so there is nothing to learn")
    if answers[0] == 0:
        raise RecordError("order of roles", "message 1 is an assistant's: an answer to nothing. Put a user's before it")
    if messages[-1].role != "assistant":
        raise RecordError(
            "order of roles", f"message {len(messages)}, the last, is a {messages[-1].role}'s, which nothing answers. "
            "Take it out, or add the answer"
        )  # fmt: skip
