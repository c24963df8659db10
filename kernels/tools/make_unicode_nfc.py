"""Writes kernels/src/unicode_nfc.inc: the tables of Unicode's normal form C (UAX 15), as Hugging Face has it.

What decomposes, what composes and what is reordered is asked of the `tokenizers` library, because that library is what
our token ids must be equal to; it follows an older Unicode version than Python, whose `unicodedata` gives the values.
Another release of either may follow another version: run this again and read the difference.

    python kernels/tools/make_unicode_nfc.py > kernels/src/unicode_nfc.inc
"""

import sys
import unicodedata
from collections.abc import Callable, Iterable

import tokenizers
from tokenizers.normalizers import NFC, NFD

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xAC00 + 11172)
_GROWTH = (2, 3)  # what unicode_nfc.c has room for: code points and bytes, for each byte


def pairs() -> dict[int, tuple[int, int]]:
    """The first step of each canonical decomposition but Hangul's; the second is 0 where there is one part only."""
    nfd = NFD()
    found = {}
    for c in CODE_POINTS:
        if c in HANGUL or nfd.normalize_str(chr(c)) == chr(c):
            continue
        parts = [int(part, 16) for part in unicodedata.decomposition(chr(c)).split()]
        found[c] = (parts[0], parts[1] if len(parts) == 2 else 0)
    return found


def classes() -> dict[int, int]:
    """The combining class of each code point that is reordered."""
    nfd = NFD()
    found = {}
    for c in CODE_POINTS:
        value = unicodedata.combining(chr(c))
        # U+0334 has class 1 and goes before any other, behind which a character of class 1 goes itself.
        text = f"a{chr(c)}\u0334" if value > 1 else f"a\u0301{chr(c)}"
        if value and nfd.normalize_str(text) != text:
            found[c] = value
    return found


def compositions(of: dict[int, tuple[int, int]]) -> list[int]:
    """The code points that their two parts compose to, by those parts."""
    nfc = NFC()
    whole = [c for c, (first, second) in of.items() if second and nfc.normalize_str(chr(first) + chr(second)) == chr(c)]
    return sorted(whole, key=of.__getitem__)


def suspects(of: dict[int, tuple[int, int]], whole: Iterable[int], combining: Iterable[int]) -> list[int]:
    """What a text in normal form C may hold only in some places, or not at all."""
    whole = set(whole)
    jamo = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]
    return sorted({*combining, *(of.keys() - whole), *(of[c][1] for c in whole), *jamo})


def ranges(code_points: Iterable[int], value: Callable[[int], int], longest: int) -> list[tuple[int, int, int]]:
    """(first, count, value) of neighbours that have the same value."""
    found: list[tuple[int, int, int]] = []
    for c in sorted(code_points):
        if found and c == found[-1][0] + found[-1][1] and value(c) == found[-1][2] and found[-1][1] < longest:
            found[-1] = (found[-1][0], found[-1][1] + 1, found[-1][2])
        else:
            found.append((c, 1, value(c)))
    return found


def table(kind: str, name: str, values: list[int], width: int) -> str:
    lines = [values[i : i + width] for i in range(0, len(values), width)]
    body = "\n".join("    " + " ".join(f"{v:#x}," for v in line) for line in lines)
    return f"static const {kind} {name}[{len(values)}] = {{\n{body}\n}};"


def check_growth() -> None:
    """SystemExit where a character grows by more than unicode_nfc.c has room for."""
    nfc, nfd = NFC(), NFD()
    for c in CODE_POINTS:
        size = len(chr(c).encode())
        grown = len(nfd.normalize_str(chr(c))), len(nfc.normalize_str(chr(c)).encode())
        if any(after > most * size for after, most in zip(grown, _GROWTH, strict=True)):
            raise SystemExit(f"U+{c:04X} has {size} bytes and becomes {grown}")


def main() -> None:
    check_growth()
    of, combining = pairs(), classes()
    whole = compositions(of)
    place = {c: i for i, c in enumerate(of)}
    print("/* unicode_nfc.inc - Unicode's normal form C.")
    print(f" * Written by tools/make_unicode_nfc.py with Hugging Face tokenizers {tokenizers.__version__}: {len(of)}")
    print(f" * decompositions, {len(whole)} compositions, {len(combining)} combining characters. */")
    print("/* clang-format off */")
    print("/* code point << 42 | first part << 21 | second part, or 0; ascending */")
    print(table("uint64_t", "nfc_pairs", [c << 42 | a << 21 | b for c, (a, b) in of.items()], 6))
    print("/* places in nfc_pairs of those that compose, ascending by their parts */")
    print(table("uint16_t", "nfc_compositions", [place[c] for c in whole], 18))
    print("/* first code point << 15 | how many << 8 | combining class; ascending */")
    print(
        table(
            "uint32_t",
            "nfc_classes",
            [c << 15 | n << 8 | v for c, n, v in ranges(combining, combining.__getitem__, 127)],
            10,
        )
    )
    print("/* first code point << 11 | how many that may not be normal; ascending */")
    print(
        table(
            "uint32_t",
            "nfc_suspects",
            [c << 11 | n for c, n, _ in ranges(suspects(of, whole, combining), lambda _: 0, 2047)],
            10,
        )
    )
    print("/* clang-format on */")


if __name__ == "__main__":
    sys.exit(main())
