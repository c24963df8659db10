"""What tokens are called in tokenizer.json and in GGUF."""

from edgebit.checkpoint.tokenizer import ADDED, BYTE, CheckpointTokenizer, Kind
from edgebit.checkpoint.tokenizer.byte_alphabet import BYTE_OF
from edgebit.checkpoint.tokenizer.text_form import SPACE_MARK

_STAND_INS = {byte: char for char, byte in BYTE_OF.items()}


def token_name(tokenizer: CheckpointTokenizer, token: int) -> str:
    """Its bytes as a vocabulary of its kind writes them or, where text cannot become it, its text; "" for no token."""
    content, flags = tokenizer.tokens[token], tokenizer.flags[token]
    if flags & BYTE:
        return f"<0x{content[0]:02X}>"
    if token not in tokenizer.merged_ids or flags & ADDED:
        return content.decode(errors="replace")
    if tokenizer.kind == Kind.BYTE_FALLBACK:
        return content.decode(errors="replace").replace(" ", SPACE_MARK)
    return "".join(_STAND_INS[byte] for byte in content)
