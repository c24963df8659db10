"""The printable characters that stand for the 256 bytes in byte-level vocabularies, as GPT-2 has them."""


def _byte_alphabet() -> dict[str, int]:
    """Most bytes stand for themselves, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


BYTE_OF = _byte_alphabet()


class _ByteTable(dict[int, int]):
    """For str.translate: the byte of each stand-in; ValueError at any other character."""

    def __missing__(self, char: int) -> int:
        raise ValueError(f"{chr(char)!r} stands for no byte")


_TO_LATIN1 = _ByteTable({ord(char): byte for char, byte in BYTE_OF.items()})


def byte_level_bytes(text: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for; ValueError at a character that is no byte's."""
    return text.translate(_TO_LATIN1).encode("latin-1")
