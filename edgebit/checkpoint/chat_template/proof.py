"""Whether a prompt program gives the same prompts as a chat template: which orders of roles, and whatever they hold."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from edgebit.bundle.prompt_program import ROLES, Message, PromptProgram
from edgebit.checkpoint.chat_template.rendering import ChatTemplate, RefusedError
from edgebit.errors import EngineError, TokenizerError

# Contents that templates are known to treat in their own way, each tried in every place of a conversation.
_CONTENTS = (
    "Turn the light off.",
    "",
    " ",
    "\n",
    "  in spaces  ",
    "\n\nin line breaks\r\n",
    "\t\u00a0\u3000odd white space\u2028\x1f\x85",
    "two\n\nparagraphs",
    "<|eot_id|><|start_header_id|>system<|end_header_id|>",
    "<|im_end|>\n<|im_start|>system\n",
    "<s>[INST] <<SYS>> </s>",
    "<start_of_turn>model\n<end_of_turn>",
    "<think>thought</think>answer",
    "<think>\nthought\n</think>\n\n\nanswer</think>\n",
    "<think>\n",
    "</think>",
    "<tool_call>{}</tool_call>",
    "<tool_response>x</tool_response>",
    "{{ bos_token }}{% if x %}",
    "& < > \" ' \\ \\n",
    "User: x\nAssistant: y",
    "### Instruction:\nx\n\n### Response:\n",
    "schön 你好 🙂",
    "A" * 5000,
)
_EDGES = ("", " ", "\n\n", " x\n", "x")  # every two of them in neighbouring messages
_PROOF_ORDERS = (
    ("user",),
    ("user", "assistant"),
    ("system", "user"),
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
)
_ORDERS_MAX = 5  # messages: every order of roles up to this length is tried
_ORDERS = [order for size in range(1, _ORDERS_MAX + 1) for order in product(ROLES, repeat=size)]


def restrict(program: PromptProgram, template: ChatTemplate, bos: str) -> PromptProgram:
    """The same program, allowing only orders of roles that the template takes and writes as the program does.

    bos: the text before all of the program's. Raises TokenizerError where no restriction leaves only those.
    """
    template.render_ahead(map(_conversation, _ORDERS))
    good = {order for order in _ORDERS if _agrees(program, template, _conversation(order), bos)}
    restrictions: list[dict[str, Any]] = [
        {"system_anywhere": anywhere, "user_first": first, "user_last": last, "alternate": alternate,
         "allow_system": system}
        for system in ([True, False] if program.allow_system else [False])
        for anywhere in ([True, False] if system and program.system_anywhere else [False])
        for last in (False, True)
        for first in (False, True)
        for alternate in (False, True)
    ]  # fmt: skip
    for restriction in restrictions:
        restricted = replace(program, **restriction)
        if all(order in good for order in _ORDERS if _takes(restricted, order)):
            return restricted
    wrong = next(order for order in _ORDERS if _takes(restricted, order) and order not in good)
    raise TokenizerError(_difference(restricted, template, _conversation(wrong), bos))


def reach(program: PromptProgram) -> int:
    """How many orders of roles it takes."""
    return sum(_takes(program, order) for order in _ORDERS)


def prove(program: PromptProgram, template: ChatTemplate, bos: str) -> None:
    """Raise TokenizerError at the first conversation whose prompt differs, every odd content in every place."""
    template.render_ahead(conversations(program))
    for conversation in conversations(program):
        if not _agrees(program, template, conversation, bos):
            raise TokenizerError(_difference(program, template, conversation, bos))


def conversations(program: PromptProgram) -> Iterator[list[Message]]:
    """Those that the program takes, of all that the proof is made of."""
    for order in _PROOF_ORDERS:
        if not _takes(program, order):
            continue
        for place, content in product(range(len(order)), _CONTENTS):
            conversation = _conversation(order)
            conversation[place] = Message(order[place], content)
            yield conversation
        for place, *contents in product(range(len(order) - 1), _EDGES, _EDGES):
            conversation = _conversation(order)
            conversation[place : place + 2] = map(Message, order[place : place + 2], contents)
            yield conversation


def text_of(program: PromptProgram, messages: Sequence[Message]) -> str:
    """The prompt as one text, without the begin-of-text token."""
    return "".join(text for text, _ in program.render(messages))


def _conversation(order: Sequence[str]) -> list[Message]:
    return [Message(role, f" message {place}\n") for place, role in enumerate(order)]


def _takes(program: PromptProgram, order: Sequence[str]) -> bool:
    try:
        program.render(_conversation(order))
    except EngineError:
        return False
    return True


def _agrees(program: PromptProgram, template: ChatTemplate, messages: Sequence[Message], bos: str) -> bool:
    try:
        return template.render(messages) == bos + text_of(program, messages)
    except (RefusedError, EngineError):
        return False


def _difference(program: PromptProgram, template: ChatTemplate, messages: Sequence[Message], bos: str) -> str:
    """Words for where template and program part."""
    roles = ", ".join(f"{message.role} {message.content[:40]!r}" for message in messages)
    try:
        theirs, ours = template.render(messages), bos + text_of(program, messages)
    except RefusedError as refused:
        return f"the chat template refuses the conversation {roles}: {refused}"
    at = next((i for i, (x, y) in enumerate(zip(theirs, ours, strict=False)) if x != y), min(len(theirs), len(ours)))
    place = slice(max(0, at - 20), at + 40)
    return (
        "the chat template does what a prompt program cannot: for the conversation "
        f"{roles} it writes {theirs[place]!r}, and plain prefixes and suffixes give {ours[place]!r}"
    )
