"""Pre-tokenizers, known by how `tokenizers` writes them."""

from typing import Any

from edgebit.checkpoint.tokenizer.forms import PreTokenizer
from edgebit.errors import TokenizerError

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_pre_tokenizer(pre_tokenizer: dict[str, Any] | None) -> PreTokenizer:
    """Which one it is; TokenizerError where it is none that we have."""
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if [step.get("type") for step in steps] != ["Split", "ByteLevel"]:
        kinds = ", ".join(str(step.get("type")) for step in steps) or "none"
        raise TokenizerError(f"pre-tokenizer {kinds} is not supported: only Llama 3's (Split, ByteLevel)")
    split, byte_level = steps
    pattern = split.get("pattern", {}).get("Regex")
    if pattern != LLAMA3_PATTERN:
        raise TokenizerError(f"pre-tokenizer pattern {pattern!r} is not supported: only Llama 3's")
    if split.get("behavior") != "Isolated" or split.get("invert"):
        raise TokenizerError("the pre-tokenizer's Split must be Isolated and not inverted")
    if byte_level.get("add_prefix_space") or byte_level.get("use_regex", True):
        raise TokenizerError("the pre-tokenizer's ByteLevel must have add_prefix_space and use_regex off")
    return PreTokenizer.LLAMA3
