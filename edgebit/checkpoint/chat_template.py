"""A checkpoint's chat template (Jinja) compiled to a prompt program, and proven equal to it on a set of conversations.

The template is rendered as transformers does it, in jinja2's sandbox, on contents that are found again in the result:
what stands between them is the program. A template that does more than a prompt program can say is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgebit.bundle.prompt_program import ROLES, Message, PromptProgram
from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.errors import EngineError, TokenizerError

# What is found again in a rendered prompt. Letters only: no template looks for them, and nothing escapes them.
_MARKS = ("QzvmarkA", "QzvmarkB", "QzvmarkC")
_CLOCKS = (datetime(2001, 2, 3), datetime(2031, 11, 30))

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
    "<think>thought</think>answer",
    "<think>\n",
    "<tool_call>{}</tool_call>",
    "<tool_response>x</tool_response>",
    "{{ bos_token }}{% if x %}",
    "& < > \" ' \\ \\n",
    "User: x\nAssistant: y",
    "schön 你好 🙂",
    "A" * 5000,
)
_RENDER_ERRORS = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip
_PROOF_ORDERS = (
    ("user",),
    ("user", "assistant"),
    ("system", "user"),
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
)
_ORDERS_MAX = 5  # messages: every order of roles up to this length is tried


class _RefusedError(Exception):
    """The template called raise_exception(): it does not take this conversation."""


def compile_chat_template(template: str, tokenizer: CheckpointTokenizer) -> PromptProgram:
    """The prompt program that gives the same prompts as the Jinja `template` of that tokenizer's checkpoint.

    The tokenizer's begin-of-text token goes first, once, whether the template or the tokenizer puts it there.
    Raises TokenizerError, saying where they part, if the template does what no prompt program can.
    """
    bos = "" if tokenizer.bos_token is None else tokenizer.tokens[tokenizer.bos_token].decode()
    rendered = _Template(template, tokenizer.named_tokens)
    try:
        program = _derive(rendered, bos)
        leading_bos = bos if bos and rendered.render([Message("user", _MARKS[0])]).startswith(bos) else ""
        program = _restrict(program, rendered, leading_bos)
        _prove(program, rendered, leading_bos)
    except _RefusedError as refused:
        raise TokenizerError(f"the chat template refuses a plain conversation: {refused}") from refused
    return program


class _GenerationTag(Extension):
    """{% generation %} ... {% endgeneration %}, with which training tools mark answers: its content, as it stands."""

    tags = {"generation"}  # noqa: RUF012 (declared so in jinja2)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Template:
    """The Jinja template, rendered as transformers' apply_chat_template does."""

    def __init__(self, template: str, named_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        self._clock = _CLOCKS[0]
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = self._strftime_now
        self._named = dict(named_tokens)
        try:
            self._template = environment.from_string(template)
        except jinja2.TemplateError as error:
            raise TokenizerError(f"the chat template is not valid Jinja: {error}") from error

    def render(self, messages: Sequence[Message], *, generation: bool = True) -> str:
        """The prompt's text. Raises _RefusedError where the template refuses the conversation."""
        plain = [{"role": message.role, "content": message.content} for message in messages]
        texts = []
        for clock in _CLOCKS:
            self._clock = clock
            try:
                texts.append(
                    self._template.render(
                        messages=plain,
                        add_generation_prompt=generation,
                        tools=None,
                        documents=None,
                        **self._named,
                    )
                )
            except _RENDER_ERRORS as error:
                raise _RefusedError(str(error)) from error
        if texts[0] != texts[1]:
            raise TokenizerError("the chat template writes the date into the prompt: a prompt program cannot")
        return texts[0]

    def _strftime_now(self, form: str) -> str:
        return self._clock.strftime(form)


def _refuse(message: str) -> NoReturn:
    raise _RefusedError(message)


def _derive(template: _Template, bos: str) -> PromptProgram:
    """The program that fits a few marked conversations."""
    a, b, c = _MARKS
    front, tail = _split(template, ["user"], [a])
    front = front.removeprefix(bos)
    suffix = _user_suffix(template, front, tail)
    user, generation = (front, suffix), tail.removeprefix(suffix)

    try:
        _, user_to_assistant, assistant_to_user, _ = _split(template, ["user", "assistant", "user"], [a, b, c])
    except _RefusedError as refused:
        raise TokenizerError(f"the chat template refuses a conversation of three messages: {refused}") from refused
    if not user_to_assistant.startswith(user[1]) or not assistant_to_user.endswith(user[0]):
        raise TokenizerError("the chat template writes a message in another way when others stand around it")
    assistant = (
        user_to_assistant.removeprefix(user[1]),
        assistant_to_user.removesuffix(user[0]) if user[0] else assistant_to_user,
    )

    system, allow_system = ("", ""), False
    try:
        system_front, system_to_user, _ = _split(template, ["system", "user"], [a, b])
        if system_to_user.endswith(user[0]):
            suffix = system_to_user.removesuffix(user[0]) if user[0] else system_to_user
            system, allow_system = (system_front.removeprefix(bos), suffix), True
    except (_RefusedError, TokenizerError):
        pass  # then the program allows none
    return PromptProgram(
        system=system,
        user=user,
        assistant=assistant,
        generation=generation,
        add_bos=bool(bos),
        strip=template.render([Message("user", f" {a} ")]) == template.render([Message("user", a)]),
        allow_system=allow_system,
        system_anywhere=allow_system,
    )


def _user_suffix(template: _Template, prefix: str, tail: str) -> str:
    """What follows a user's content, of the `tail` that holds it and the generation prefix."""
    message = Message("user", _MARKS[0])
    try:
        between = _split(template, ["user", "user"], _MARKS[:2])[1]
        if between.endswith(prefix) and tail.startswith(between[: len(between) - len(prefix)]):
            return between[: len(between) - len(prefix)]
    except (_RefusedError, TokenizerError):
        pass  # two messages of a user in a row are refused or joined
    without = template.render([message], generation=False)
    suffix = without[without.rindex(message.content) + len(message.content) :]
    if not tail.startswith(suffix):
        raise TokenizerError("the chat template changes the conversation itself when the answer is asked for")
    return suffix


def _split(template: _Template, roles: Sequence[str], marks: Sequence[str]) -> list[str]:
    """What a conversation's prompt holds before, between and after the contents `marks`."""
    text = template.render([Message(role, mark) for role, mark in zip(roles, marks, strict=True)])
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise TokenizerError(f"the chat template does not write the {' '.join(roles)} messages once each, in order")
        parts.append(before)
    return [*parts, text]


def _orders() -> list[tuple[str, ...]]:
    return [order for size in range(1, _ORDERS_MAX + 1) for order in product(ROLES, repeat=size)]


def _restrict(program: PromptProgram, template: _Template, bos: str) -> PromptProgram:
    """The same program, allowing only orders of roles that the template takes and writes as the program does."""
    good = {order for order in _orders() if _agrees(program, template, _conversation(order), bos)}
    restrictions: list[dict[str, Any]] = [
        {"system_anywhere": anywhere, "user_first": first, "alternate": alternate, "allow_system": system}
        for system in ([True, False] if program.allow_system else [False])
        for anywhere in ([True, False] if system else [False])
        for first in (False, True)
        for alternate in (False, True)
    ]
    for restriction in restrictions:
        restricted = replace(program, **restriction)
        if all(order in good for order in _orders() if _takes(restricted, order)):
            return restricted
    wrong = next(order for order in _orders() if _takes(restricted, order) and order not in good)
    raise TokenizerError(_difference(restricted, template, _conversation(wrong), bos))


def _prove(program: PromptProgram, template: _Template, bos: str) -> None:
    """Raise TokenizerError at the first conversation whose prompt differs, every odd content in every place."""
    for order in _PROOF_ORDERS:
        if not _takes(program, order):
            continue
        for place, content in product(range(len(order)), _CONTENTS):
            conversation = _conversation(order)
            conversation[place] = Message(order[place], content)
            if not _agrees(program, template, conversation, bos):
                raise TokenizerError(_difference(program, template, conversation, bos))


def _conversation(order: Sequence[str]) -> list[Message]:
    return [Message(role, f" message {place}\n") for place, role in enumerate(order)]


def _takes(program: PromptProgram, order: Sequence[str]) -> bool:
    try:
        program.render(_conversation(order))
    except EngineError:
        return False
    return True


def _text(program: PromptProgram, messages: Sequence[Message]) -> str:
    return "".join(text for text, _ in program.render(messages))


def _agrees(program: PromptProgram, template: _Template, messages: Sequence[Message], bos: str) -> bool:
    try:
        return template.render(messages) == bos + _text(program, messages)
    except (_RefusedError, EngineError):
        return False


def _difference(program: PromptProgram, template: _Template, messages: Sequence[Message], bos: str) -> str:
    """Words for where template and program part."""
    roles = ", ".join(f"{message.role} {message.content[:40]!r}" for message in messages)
    try:
        theirs, ours = template.render(messages), bos + _text(program, messages)
    except _RefusedError as refused:
        return f"the chat template refuses the conversation {roles}: {refused}"
    at = next((i for i, (x, y) in enumerate(zip(theirs, ours, strict=False)) if x != y), min(len(theirs), len(ours)))
    place = slice(max(0, at - 20), at + 40)
    return (
        "the chat template does what a prompt program cannot: for the conversation "
        f"{roles} it writes {theirs[place]!r}, and plain prefixes and suffixes give {ours[place]!r}"
    )
