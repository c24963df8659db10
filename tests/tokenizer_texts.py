"""Texts at which tokenizers part, and Hugging Face's ids for them."""

import random
import sysconfig
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from hypothesis import strategies as st

SCRIPTS_FILE = Path(__file__).resolve().parent / "data" / "tokenizers" / "scripts.txt"
SCRIPTS = SCRIPTS_FILE.read_text(encoding="utf-8")

# Characters at which the pre-tokenizers' alternatives meet, and the beginnings of special tokens.
EDGES = " \t\r\n\x0b'’sStTrReEvVmMlLdDſK019²½aé中あ🙂.,<|>_-\u3000\u200d\u0301\u0323\x85\xa0\u2028\u2581각ᄀ"
PARTS = [
    "<s>",
    "</s>",
    "<|eot_id|>",
    "<tool>",
    "1234567",
    "  ",
    "12½3456",
    " can't",
    "'S",
    "!!",
    "e\u0301\u0323",
    "\u1100\u1161\u11a8",
    "e\u0301a中",
]
edge_text = st.text(st.one_of(st.sampled_from(EDGES), st.characters(exclude_categories=["Cs"])), max_size=60)
odd_text = st.lists(st.one_of(st.sampled_from(PARTS), edge_text), max_size=6).map("".join)


def hf_ids(hf: tokenizers.Tokenizer, text: str) -> list[int]:
    return hf.encode(text, add_special_tokens=False).ids


def without_unassigned(data: bytes) -> bytes:
    """The same bytes with code points that this Python does not know as `x`: other libraries may know them."""
    text = data.decode("utf-8", "surrogateescape")
    known = (char if unicodedata.category(char) != "Cn" else "x" for char in text)
    return "".join(known).encode("utf-8", "surrogateescape")


def mixed_text() -> list[str]:
    """More than a megabyte: source code, many scripts, emoji, random code points, numbers and white space."""
    rng = random.Random(20240418)
    parts, size = [SCRIPTS], 0
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        parts.append(file.read_text(encoding="utf-8", errors="ignore"))
        size += len(parts[-1])
        if size > 900_000:
            break
    plain = [*range(0xD800), *range(0xE000, 0x110000)]
    for _ in range(4000):
        parts.append("".join(rng.choice(EDGES) for _ in range(rng.randrange(40))))
        parts.append("".join(chr(rng.choice(plain)) for _ in range(rng.randrange(20))))
        parts.append("".join(chr(rng.randrange(0x1F300, 0x1FAFF)) for _ in range(rng.randrange(6))))
        parts.append(str(rng.randrange(10**12)) + " " * rng.randrange(9) + "\n" * rng.randrange(3))
    return parts


def every_code_point() -> Iterator[str]:
    """In texts of 16,384 of them, each before a digit and after a letter."""
    for first in range(0, 0x110000, 0x4000):
        chars = (chr(c) for c in range(first, first + 0x4000) if not 0xD800 <= c < 0xE000)
        yield "".join(f"a{char}1" for char in chars)
