"""The forms of tokenizer that a model file can hold, by the numbers it has for them (docs/model-format.md, TOKN)."""

from enum import IntEnum

from edgebit.bundle.conf_section import SIZE_MAX

SPECIAL, ADDED, UNUSED, NORMALIZED, BYTE = 1, 2, 4, 8, 16  # flags of a token; all but BYTE are in section TOKN too
IGNORE_MERGES, STRIP_LEADING_SPACE = 1, 2  # flags of a section
NO_TOKEN = 0xFFFFFFFF  # in the section's tables: an empty place
MAX_VOCAB = SIZE_MAX["vocab_size"]
MAX_TOKEN_BYTES = 1 << 16


class Kind(IntEnum):
    """What merging begins with."""

    BYTE_LEVEL = 0  # the bytes of each piece
    BYTE_FALLBACK = 1  # its characters, those without a token as bytes: SentencePiece's BPE


class PreTokenizer(IntEnum):
    """How text is cut into the pieces that merging stays within."""

    NONE = 0
    LLAMA3 = 1
    GPT2 = 2
    QWEN2 = 3
    FALCON = 4


class Normalizer(IntEnum):
    """What is done to text first. Of Kind.BYTE_FALLBACK, U+2581 and the space are one character besides."""

    NONE = 0
    NFC = 1


class SpacePrefix(IntEnum):
    """Where a space is put before text. A segment is what stands between two added tokens, and is not empty."""

    NONE = 0
    SEGMENT = 1  # before each segment (SentencePiece's dummy prefix; Prepend)
    UNSPACED_SEGMENT = 2  # before each that does not begin with one (Metaspace, always)
    UNSPACED_TEXT = 3  # before the whole text's, if it begins with a segment that does not begin with one (first)
