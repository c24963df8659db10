"""Two chat templates compared, as prompt programs: in which features they differ, and on which conversation first."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from edgebit.bundle.prompt_program import Message, PromptProgram
from edgebit.checkpoint.chat_template.compiler import compile_chat_template
from edgebit.checkpoint.chat_template.proof import conversations, text_of
from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.errors import EngineError, TokenizerError


def template_differences(a: CheckpointTokenizer | None, b: CheckpointTokenizer | None) -> Iterator[tuple[str, str]]:
    """(what, how it differs). Templates that no prompt program can follow are compared by their Jinja text."""
    templates = [None if tokenizer is None else tokenizer.chat_template for tokenizer in (a, b)]
    if a is None or b is None or templates[0] is None or templates[1] is None:
        if templates[0] is not templates[1]:
            yield "chat template", f"only the {'first' if templates[1] is None else 'second'} has one"
        return
    try:
        one, other = (compile_chat_template(str(each.chat_template), each) for each in (a, b))
    except TokenizerError as error:
        if templates[0] != templates[1]:
            yield "chat template", f"other Jinja, and no prompt programs to compare: {error}"
        return
    for field in fields(PromptProgram):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if first != second:
            yield field.name, f"{first!r} and {second!r}"
    yield from _first_parting(one, other)


def _first_parting(one: PromptProgram, other: PromptProgram) -> Iterator[tuple[str, str]]:
    """The first conversation of both their proofs for which they write other prompts, or which one does not take."""
    for messages in [*conversations(one), *conversations(other)]:
        texts = [_prompt(program, messages) for program in (one, other)]
        if texts[0] != texts[1]:
            shown = ", ".join(f"{message.role} {message.content[:40]!r}" for message in messages)
            yield "conversation", f"{shown}: {texts[0]} and {texts[1]}"
            return


def _prompt(program: PromptProgram, messages: Sequence[Message]) -> str:
    try:
        return repr(text_of(program, messages))
    except EngineError as error:
        return f"refused, {error}"
