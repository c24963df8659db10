"""Pre-tokenizers, as `tokenizers` writes them."""

from collections.abc import Mapping
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
_THREE_DIGITS_PATTERN = "[0-9][0-9][0-9]"

_OF_PATTERN = {
    LLAMA3_PATTERN: PreTokenizer.LLAMA3,
    QWEN2_PATTERN: PreTokenizer.QWEN2,
    GPT2_PATTERN: PreTokenizer.GPT2,
}
_CHECKED = ("behavior", "use_regex", "individual_digits", "pattern", "invert")  # settings that change what comes out


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_STEPS: Mapping[PreTokenizer, list[dict[str, Any]]] = {
    PreTokenizer.LLAMA3: [_split(LLAMA3_PATTERN), _byte_level(use_regex=False)],
    PreTokenizer.QWEN2: [_split(QWEN2_PATTERN), _byte_level(use_regex=False)],
    PreTokenizer.GPT2: [_byte_level(use_regex=True)],
    PreTokenizer.FALCON: [
        {"type": "Punctuation", "behavior": "Contiguous"},
        _byte_level(use_regex=True),
        {"type": "Digits", "individual_digits": False},
        _split(_THREE_DIGITS_PATTERN),
    ],
}


def write_pre_tokenizer(kind: PreTokenizer) -> dict[str, Any]:
    """A byte-level tokenizer's `pre_tokenizer` in tokenizer.json."""
    steps = _STEPS[kind]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


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
    if kinds == [step["type"] for step in _STEPS[PreTokenizer.FALCON]]:
        _check_falcon(steps)
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


def _check_falcon(steps: list[dict[str, Any]]) -> None:
    for step, known in zip(steps, _STEPS[PreTokenizer.FALCON], strict=True):
        for key in [key for key in _CHECKED if key in known]:
            given = step.get(key, True if key == "use_regex" else None)
            if given != known[key]:
                raise TokenizerError(
                    f"the pre-tokenizer's {known['type']} has {key} = {given!r}: only {known[key]!r} is supported"
                )
