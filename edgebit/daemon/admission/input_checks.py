"""What a text must be to become a prompt, beside what the contract says of its type and length in bytes."""

from collections.abc import Iterable

from edgebit.daemon.config.sections import LimitsConfig
from edgebit.daemon.contract.messages import GenerateRequest, Refusal, Request, TokenizeRequest

_HARMLESS = "\t\n\r"
_CONTROL = {code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _HARMLESS}
_REMOVED = dict.fromkeys(_CONTROL)


def texts_of(request: Request) -> Iterable[tuple[str, str]]:
    """The texts of a request that a model is to read, each with the name of its field."""
    if isinstance(request, TokenizeRequest):
        yield "text", request.text
    elif isinstance(request, GenerateRequest):
        if request.prompt is not None:
            yield "prompt", request.prompt
        for message in request.messages:
            if message.content != request.prompt:
                yield f"the {message.role} message", message.content


def check_input(request: Request, limits: LimitsConfig) -> None:
    """Raises Refusal 400 for a prompt of blanks alone, and for control characters where they are not allowed."""
    for name, text in texts_of(request):
        if limits.control_characters == "refuse" and (found := _first_control(text)) is not None:
            words = f"{name} holds the control character U+{ord(text[found]):04X} at character {found}"
            raise Refusal(400, "control_character", words)
    if isinstance(request, GenerateRequest) and not any(text.strip() for _, text in texts_of(request)):
        raise Refusal(400, "missing_field", "the prompt is empty, or holds blanks alone")


def check_length(tokens: int, limits: LimitsConfig) -> None:
    """Raises Refusal 413 for a prompt of more tokens than this device takes."""
    if limits.max_prompt_tokens and tokens > limits.max_prompt_tokens:
        words = f"the prompt has {tokens} tokens, this device takes {limits.max_prompt_tokens}"
        raise Refusal(413, "prompt_too_long", words)


def _first_control(text: str) -> int | None:
    if len(text.translate(_REMOVED)) == len(text):
        return None
    return next(place for place, character in enumerate(text) if ord(character) in _CONTROL)
