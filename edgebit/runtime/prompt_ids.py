"""From what was said to the tokens of a prompt: plain, or in the model's own template."""

from collections.abc import Sequence

from edgebit.bundle.prompt_program import Message, PromptProgram
from edgebit.errors import EngineError
from edgebit.runtime.tokenizer import Tokenizer


def prompt_ids(tokenizer: Tokenizer, bos_token: int | None, prompt: str) -> list[int]:
    """Tokens of a plain prompt, begin-of-text first where the model has one; special tokens in it stay text."""
    begin = [bos_token] if bos_token is not None else []
    return begin + tokenizer.encode(prompt)


def chat_ids(
    tokenizer: Tokenizer,
    program: PromptProgram | None,
    bos_token: int | None,
    messages: Sequence[Message],
    *,
    source: str,
) -> list[int]:
    """Tokens of a conversation in the template of the model named `source`, ready for the assistant's answer.

    Raises EngineError where there is no template, or it does not allow the order of roles.
    """
    if program is None:
        raise EngineError(f"{source} has no chat template: it is a base model. Give it a plain prompt.")
    begin = bos_token if program.add_bos else None
    return tokenizer.encode_segments(program.render(messages), begin=begin)
