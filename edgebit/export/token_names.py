"""What tokens are called in tokenizer.json and in GGUF."""

from edgebit.checkpoint.tokenizer import ADDED, CheckpointTokenizer
from edgebit.checkpoint.tokenizer.byte_alphabet import BYTE_OF

_STAND_INS = {byte: char for char, byte in BYTE_OF.items()}


def token_name(tokenizer: CheckpointTokenizer, token: int) -> str:
    """Its bytes' printable stand-ins or, where no bytes merge to it, its text; "" where the id has no token."""
    if token in tokenizer.merged_ids and not tokenizer.flags[token] & ADDED:
        return "".join(_STAND_INS[byte] for byte in tokenizer.tokens[token])
    return tokenizer.tokens[token].decode(errors="replace")
