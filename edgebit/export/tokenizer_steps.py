"""What a tokenizer does with text, as the steps of a tokenizer.json.

Sources: `tokenizers` 0.23, for how it writes each step; transformers 5.24, convert_slow_tokenizer.py, for Llama 2's.
"""

from typing import Any

from edgebit.checkpoint.tokenizer import CheckpointTokenizer, Kind, Normalizer, SpacePrefix
from edgebit.checkpoint.tokenizer.pre_tokenizers import write_pre_tokenizer
from edgebit.checkpoint.tokenizer.text_form import SPACE_MARK

Step = dict[str, Any]


def _replace(pattern: str, content: str) -> Step:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def _metaspace(prepend_scheme: str) -> Step:
    return {"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": prepend_scheme, "split": False}


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
    return write_pre_tokenizer(tokenizer.pre_tokenizer)


def decoder(tokenizer: CheckpointTokenizer) -> Step:
    if tokenizer.kind == Kind.BYTE_LEVEL:
        return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if tokenizer.strip_leading_space else []
    steps = [_replace(SPACE_MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return {"type": "Sequence", "decoders": steps}
