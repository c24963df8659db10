"""A checkpoint's chat template (Jinja) compiled to a prompt program, and proven equal to it on many conversations."""

from dataclasses import replace

from edgebit.bundle.prompt_program import ROLES, Message, PromptProgram
from edgebit.checkpoint.chat_template.derivation import candidates
from edgebit.checkpoint.chat_template.proof import prove, reach, restrict
from edgebit.checkpoint.chat_template.rendering import ChatTemplate, RefusedError
from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.errors import TokenizerError


def compile_chat_template(template: str, tokenizer: CheckpointTokenizer) -> PromptProgram:
    """The prompt program that gives the same prompts as the Jinja `template` of that tokenizer's checkpoint.

    The tokenizer's begin-of-text token goes first, once, whether the template or the tokenizer puts it there.
    Raises TokenizerError, saying where they part, if the template does what no prompt program can.
    """
    bos = _begin_of_text(tokenizer)
    with ChatTemplate(template, tokenizer.named_tokens) as rendered:
        try:
            program = _compile(rendered, bos)
            program.to_bytes()
        except UnicodeEncodeError as error:
            raise TokenizerError("the chat template writes half a surrogate pair, which is no text") from error
        except RefusedError as refused:
            raise TokenizerError(f"the chat template refuses a plain conversation: {refused}") from refused
    return program


def _begin_of_text(tokenizer: CheckpointTokenizer) -> str:
    if tokenizer.bos_token is None:
        return ""
    try:
        return tokenizer.tokens[tokenizer.bos_token].decode()
    except UnicodeDecodeError as error:
        raise TokenizerError(f"the begin-of-text token, {tokenizer.bos_token}, is a part of a character") from error


def _compile(template: ChatTemplate, bos: str) -> PromptProgram:
    """Of the candidates that are proven, the one that takes the most conversations."""
    leading_bos = bos if bos and template.render([Message("user", "x")]).startswith(bos) else ""
    fault: TokenizerError | None = None
    restricted = []
    for candidate in candidates(template, bos):
        try:
            restricted.append(restrict(candidate, template, leading_bos))
        except TokenizerError as error:
            fault = fault or error
    for program in sorted(restricted, key=lambda program: (program.allow_system, reach(program)), reverse=True):
        try:
            prove(program, template, leading_bos)
        except TokenizerError as error:
            fault = fault or error
        else:
            return _plain(program)
    raise fault or AssertionError("there is a candidate, or an error of candidates()")


def _plain(program: PromptProgram) -> PromptProgram:
    """The same without what has no bearing where there is no system message."""
    if program.allow_system:
        return program
    strip = ROLES if set(program.strip) >= {"user", "assistant"} else program.strip
    if program.default_system:
        return replace(program, system=("", ""), strip=strip)
    return replace(program, system=("", ""), strip=strip, system_place="front", strip_turn=False)
