#!/usr/bin/env python3
r"""Writes kernels/src/unicode_classes.inc: which code points are letters, numbers and white space.

The classes are those of the regular expressions inside the Hugging Face `tokenizers` library (\p{L}, \p{N} and \s),
asked one code point at a time, because that library is what our token ids must be equal to. Another release of it may
follow another Unicode version: run this again and read the difference.

    python kernels/tools/make_unicode_classes.py > kernels/src/unicode_classes.inc
"""

import sys

import tokenizers
from tokenizers import Regex
from tokenizers.pre_tokenizers import Punctuation, Split

CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)
BLOCK = 256
CLASSES = ((1, r"\p{L}"), (2, r"\p{N}"), (3, r"\s"))  # 0 is everything else


def classify() -> bytearray:
    """The class of each code point; surrogates, which no string holds, are 0."""
    classes = bytearray(CODE_POINTS)
    for number, pattern in CLASSES:
        removes = Split(Regex(pattern), "removed")
        for base in range(0, CODE_POINTS, 4096):
            chunk = [c for c in range(base, base + 4096) if c not in SURROGATES]
            if not chunk:
                continue
            left = {ord(c) for piece, _ in removes.pre_tokenize_str("".join(map(chr, chunk))) for c in piece}
            for code_point in chunk:
                if code_point not in left:
                    if classes[code_point]:
                        raise SystemExit(f"U+{code_point:04X} is in two classes")
                    classes[code_point] = number
    return classes


def punctuation() -> list[tuple[int, int]]:
    """(first, count) of the code points that the pre-tokenizer Punctuation takes for punctuation."""
    removes, found = Punctuation("removed"), list[tuple[int, int]]()
    for c in range(CODE_POINTS):
        if c in SURROGATES or removes.pre_tokenize_str(chr(c)):
            continue
        if found and c == found[-1][0] + found[-1][1] and found[-1][1] < 255:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((c, 1))
    return found


def rows(values: list[int], width: int) -> str:
    """The values as lines of C."""
    lines = [values[i : i + width] for i in range(0, len(values), width)]
    return "\n".join("    " + " ".join(f"{v}," for v in line) for line in lines)


def main() -> None:
    classes = classify()
    blocks: dict[bytes, int] = {}
    index = []
    for base in range(0, CODE_POINTS, BLOCK):
        packed = bytes(sum(classes[base + i + k] << (2 * k) for k in range(4)) for i in range(0, BLOCK, 4))
        index.append(blocks.setdefault(packed, len(blocks)))
    if len(blocks) > 256:
        raise SystemExit(f"{len(blocks)} distinct blocks do not fit an 8-bit index")
    data = [byte for block in blocks for byte in block]
    print("/* unicode_classes.inc - letters (1), numbers (2), white space (3), all else (0), two bits a code point.")
    print(" * Written by tools/make_unicode_classes.py with Hugging Face tokenizers " + tokenizers.__version__ + ".")
    counts = [sum(1 for c in classes if c == number) for number, _ in CLASSES]
    print(f" * {counts[0]} letters, {counts[1]} numbers, {counts[2]} white space. */")
    print("/* clang-format off */")
    print(f"static const uint8_t class_block_of[{len(index)}] = {{\n{rows(index, 28)}\n}};")
    print(f"static const uint8_t class_blocks[{len(data)}] = {{\n{rows(data, 24)}\n}};")
    ranges = punctuation()
    print("/* punctuation: first code point << 8 | how many; ascending */")
    packed_ranges = [first << 8 | count for first, count in ranges]
    print(f"static const uint32_t punctuation[{len(ranges)}] = {{\n{rows(packed_ranges, 10)}\n}};")
    print("/* clang-format on */")


if __name__ == "__main__":
    sys.exit(main())
