"""A chat template rendered as transformers' apply_chat_template does it, in jinja2's sandbox."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgebit.bundle.prompt_program import Message
from edgebit.errors import TokenizerError

_CLOCKS = (datetime(2001, 2, 3), datetime(2031, 11, 30))
_RENDER_ERRORS = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip


class RefusedError(Exception):
    """The template does not take this conversation: it called raise_exception(), or failed."""


class _GenerationTag(Extension):
    """{% generation %} ... {% endgeneration %}, with which training tools mark answers: its content, as it stands."""

    tags = {"generation"}  # noqa: RUF012 (declared so in jinja2)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class ChatTemplate:
    """A Jinja template, with the special tokens that it may name (bos_token, eos_token ...)."""

    def __init__(self, template: str, named_tokens: Mapping[str, str]) -> None:
        """Raises TokenizerError where `template` is no Jinja."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        self._clock = _CLOCKS[0]
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = self._strftime_now
        self._named = dict(named_tokens)
        self._rendered: dict[tuple[tuple[Message, ...], bool], str | RefusedError] = {}
        try:
            self._template = environment.from_string(template)
        except jinja2.TemplateError as error:
            raise TokenizerError(f"the chat template is not valid Jinja: {error}") from error

    def render(self, messages: Sequence[Message], *, generation: bool = True) -> str:
        """The prompt's text; `generation`: with the beginning of an answer.

        Raises RefusedError where the template refuses the conversation, TokenizerError where the date is in it.
        """
        key = (tuple(messages), generation)
        if key not in self._rendered:
            try:
                self._rendered[key] = self._render(messages, generation)
            except RefusedError as refused:
                self._rendered[key] = refused
        found = self._rendered[key]
        if isinstance(found, RefusedError):
            raise found
        return found

    def _render(self, messages: Sequence[Message], generation: bool) -> str:
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
                raise RefusedError(str(error)) from error
        if texts[0] != texts[1]:
            raise TokenizerError("the chat template writes the date into the prompt: a prompt program cannot")
        return texts[0]

    def _strftime_now(self, form: str) -> str:
        return self._clock.strftime(form)


def _refuse(message: str) -> NoReturn:
    raise RefusedError(message)
