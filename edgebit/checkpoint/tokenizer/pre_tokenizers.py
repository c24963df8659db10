"""Pre-tokenizers, known by how `tokenizers` writes them."""

from typing import Any

from edgebit.checkpoint.tokenizer.forms import PreTokenizer
from edgebit.errors import TokenizerError

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_PATTERN = _PATTERN.replace("DIGITS", "{1,3}")
QWEN2_PATTERN = _PATTERN.replace("DIGITS", "")
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
THREE_DIGITS_PATTERN = "[0-9][0-9][0-9]"

_OF_PATTERN = {
    LLAMA3_PATTERN: PreTokenizer.LLAMA3,
    QWEN2_PATTERN: PreTokenizer.QWEN2,
    GPT2_PATTERN: PreTokenizer.GPT2,
}
_FALCON: list[tuple[str, dict[str, Any]]] = [
    ("Punctuation", {"behavior": "Contiguous"}),
    ("ByteLevel", {"use_regex": True}),
    ("Digits", {"individual_digits": False}),
    ("Split", {"pattern": {"Regex": THREE_DIGITS_PATTERN}, "behavior": "Isolated", "invert": False}),
]


def read_pre_tokenizer(pre_tokenizer: dict[str, Any] | None) -> PreTokenizer:
    """Which one of a byte-level tokenizer's it is; TokenizerError where it is none that we have."""
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [str(step.get("type")) for step in steps]
    for step in steps:
        if step.get("type") == "ByteLevel" and step.get("add_prefix_space"):
            raise TokenizerError("the pre-tokenizer's ByteLevel must have add_prefix_space off")
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return PreTokenizer.GPT2
    if kinds == ["Split", "ByteLevel"]:
        return _of_pattern(*steps)
    if kinds == [kind for kind, _ in _FALCON]:
        _check_settings(steps)
        return PreTokenizer.FALCON
    raise TokenizerError(
        f"pre-tokenizer {', '.join(kinds) or 'none'} is not supported: only Llama 3's and Qwen2's (Split, ByteLevel), "
        "GPT-2's (ByteLevel) and Falcon's (Punctuation, ByteLevel, Digits, Split)"
    )


def _of_pattern(split: dict[str, Any], byte_level: dict[str, Any]) -> PreTokenizer:
    pattern = split.get("pattern", {}).get("Regex")
    if pattern not in _OF_PATTERN:
        raise TokenizerError(f"pre-tokenizer pattern {pattern!r} is not supported: only Llama 3's, Qwen2's and GPT-2's")
    if split.get("behavior") != "Isolated" or split.get("invert"):
        raise TokenizerError("the pre-tokenizer's Split must be Isolated and not inverted")
    if byte_level.get("use_regex", True):
        raise TokenizerError("the pre-tokenizer's ByteLevel must have use_regex off")
    return _OF_PATTERN[pattern]


def _check_settings(steps: list[dict[str, Any]]) -> None:
    for step, (kind, settings) in zip(steps, _FALCON, strict=True):
        for key, value in settings.items():
            given = step.get(key, True if key == "use_regex" else None)
            if given != value:
                raise TokenizerError(f"the pre-tokenizer's {kind} has {key} = {given!r}: only {value!r} is supported")
