"""What a tokenizer does with text, as the steps of a tokenizer.json.

Sources: `tokenizers` 0.23, for how it writes each step; transformers 5.24, convert_slow_tokenizer.py, for Llama 2's.
"""

from collections.abc import Mapping
from typing import Any

from edgebit.checkpoint.tokenizer import CheckpointTokenizer, Kind, Normalizer, PreTokenizer, SpacePrefix
from edgebit.checkpoint.tokenizer.pre_tokenizers import LLAMA3_PATTERN, QWEN2_PATTERN, THREE_DIGITS_PATTERN
from edgebit.checkpoint.tokenizer.text_form import SPACE_MARK

Step = dict[str, Any]


def _split(pattern: str) -> Step:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _byte_level(*, use_regex: bool) -> Step:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _replace(pattern: str, content: str) -> Step:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def _metaspace(prepend_scheme: str) -> Step:
    return {"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": prepend_scheme, "split": False}


_PRE_TOKENIZERS: Mapping[PreTokenizer, list[Step]] = {
    PreTokenizer.LLAMA3: [_split(LLAMA3_PATTERN), _byte_level(use_regex=False)],
    PreTokenizer.QWEN2: [_split(QWEN2_PATTERN), _byte_level(use_regex=False)],
    PreTokenizer.GPT2: [_byte_level(use_regex=True)],
    PreTokenizer.FALCON: [
        {"type": "Punctuation", "behavior": "Contiguous"},
        _byte_level(use_regex=True),
        {"type": "Digits", "individual_digits": False},
        _split(THREE_DIGITS_PATTERN),
    ],
}
_SCHEMES = {SpacePrefix.UNSPACED_SEGMENT: "always", SpacePrefix.UNSPACED_TEXT: "first"}


def normalizer(tokenizer: CheckpointTokenizer) -> Step | None:
    if tokenizer.kind == Kind.BYTE_LEVEL:
        return {"type": "NFC"} if tokenizer.normalizer == Normalizer.NFC else None
    mark_spaces = _replace(" ", SPACE_MARK)
    match tokenizer.space_prefix:
        case SpacePrefix.NONE:
            return mark_spaces
        case SpacePrefix.SEGMENT:
            return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE_MARK}, mark_spaces]}
    return None


def pre_tokenizer(tokenizer: CheckpointTokenizer) -> Step | None:
    if tokenizer.kind == Kind.BYTE_FALLBACK:
        scheme = _SCHEMES.get(tokenizer.space_prefix)
        return None if scheme is None else _metaspace(scheme)
    steps = _PRE_TOKENIZERS[tokenizer.pre_tokenizer]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def decoder(tokenizer: CheckpointTokenizer) -> Step:
    if tokenizer.kind == Kind.BYTE_LEVEL:
        return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if tokenizer.strip_leading_space else []
    steps = [_replace(SPACE_MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return {"type": "Sequence", "decoders": steps}
