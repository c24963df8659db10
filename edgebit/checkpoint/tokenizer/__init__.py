"""Tokenizers: read from what a checkpoint brings, and carried over to the TOKN section of a model file.

Whatever would make one text get other ids than the checkpoint's own tokenizer gives it is refused by name.
"""

from edgebit.checkpoint.tokenizer.chat_template_file import read_chat_template
from edgebit.checkpoint.tokenizer.folder import has_tokenizer, read_tokenizer
from edgebit.checkpoint.tokenizer.forms import (
    ADDED,
    BYTE,
    NORMALIZED,
    SPECIAL,
    UNUSED,
    Kind,
    Normalizer,
    PreTokenizer,
    SpacePrefix,
)
from edgebit.checkpoint.tokenizer.gguf_vocabulary import read_gguf_tokenizer
from edgebit.checkpoint.tokenizer.tokenizer import CheckpointTokenizer

__all__ = [
    "ADDED",
    "BYTE",
    "NORMALIZED",
    "SPECIAL",
    "UNUSED",
    "CheckpointTokenizer",
    "Kind",
    "Normalizer",
    "PreTokenizer",
    "SpacePrefix",
    "has_tokenizer",
    "read_chat_template",
    "read_gguf_tokenizer",
    "read_tokenizer",
]
