"""The chat template that a user chooses in the place of the checkpoint's: one of edgebit's own, or a file of theirs."""

from pathlib import Path

from edgebit.checkpoint.tokenizer import ADDED, CheckpointTokenizer
from edgebit.errors import TokenizerError

NO_TEMPLATE = "none"  # the choice of plain text
_FOLDER = Path(__file__).resolve().parent / "built_in"
# The tokens that a template of ours marks turns with, by its name: as they are spelled, or as the tokenizer names them.
_NEEDED = {
    "alpaca": ("eos_token",),
    "bitnet": ("<|eot_id|>",),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "falcon3": ("eos_token",),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "llama2": ("eos_token",),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("eos_token",),
    "phi3": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "zephyr": ("eos_token",),
}
BUILT_IN = tuple(_NEEDED)
HOW_TO_CHOOSE = f"Choose one with --template: {', '.join(BUILT_IN)}, a file with Jinja, or {NO_TEMPLATE} for plain text"


def read_choice(choice: str, tokenizer: CheckpointTokenizer) -> str | None:
    """The Jinja text of `choice`: a name of BUILT_IN, or a file's; None for NO_TEMPLATE.

    Raises TokenizerError where it is neither, or the tokenizer lacks a token that the template of ours needs.
    """
    if choice in _NEEDED:
        _check_tokens(choice, tokenizer)
    return read_template(choice)


def read_template(choice: str) -> str | None:
    """The same, whatever the tokenizer has tokens for."""
    if choice == NO_TEMPLATE:
        return None
    if choice in _NEEDED:
        return (_FOLDER / f"{choice}.jinja").read_text(encoding="utf-8")
    try:
        return Path(choice).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TokenizerError(
            f"--template {choice}: no template of that name, and no such file. {HOW_TO_CHOOSE}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"--template {choice}: cannot be read: {error}") from error


def needed_tokens(name: str) -> tuple[str, ...]:
    """Tokens that a template of ours marks turns with, the named ones such as eos_token aside."""
    return tuple(token for token in _NEEDED[name] if not token.endswith("_token"))


def added_tokens(tokenizer: CheckpointTokenizer) -> dict[str, int]:
    """Ids of the tokens that are split off from text, by their texts."""
    return {
        tokenizer.tokens[token].decode(errors="replace"): token
        for token, flags in enumerate(tokenizer.flags)
        if flags & ADDED
    }


def _check_tokens(name: str, tokenizer: CheckpointTokenizer) -> None:
    added = added_tokens(tokenizer)
    for needed in _NEEDED[name]:
        token = tokenizer.named_tokens.get(needed) if needed.endswith("_token") else needed
        if token is None:
            raise TokenizerError(f"--template {name} ends turns with the tokenizer's {needed}, and it names none")
        if token not in added:
            raise TokenizerError(f"--template {name} marks turns with {token}, which this tokenizer has no token for")
