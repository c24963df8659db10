"""The TOKN section of a model file (docs/model-format.md)."""

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgebit.checkpoint.tokenizer.forms import (
    ADDED,
    BYTE,
    IGNORE_MERGES,
    MAX_TOKEN_BYTES,
    NO_TOKEN,
    SPECIAL,
    STRIP_LEADING_SPACE,
    UNUSED,
    Kind,
    Normalizer,
    PreTokenizer,
)
from edgebit.errors import TokenizerError

if TYPE_CHECKING:
    from edgebit.checkpoint.tokenizer.tokenizer import CheckpointTokenizer


def tokenizer_section(tokenizer: "CheckpointTokenizer", vocab_size: int | None = None) -> bytes:
    """See CheckpointTokenizer.section."""
    rows = len(tokenizer.tokens) if vocab_size is None else vocab_size
    if rows < len(tokenizer.tokens):
        last = len(tokenizer.tokens) - 1
        raise TokenizerError(
            f"the tokenizer has ids up to {last} ({tokenizer.tokens[last]!r}), the model has {rows} rows of embedding: "
            "tokenizer.json belongs to another model"
        )
    check_token_sizes(tokenizer.tokens)
    missing = rows - len(tokenizer.tokens)
    tokens, flags = (*tokenizer.tokens, *(b"",) * missing), tokenizer.flags + bytes([UNUSED]) * missing
    row_of_left, csr = _merge_rows(tokenizer, flags)
    offsets = array("I", bytes(4 * (rows + 1)))
    for token, text in enumerate(tokens):
        offsets[token + 1] = offsets[token] + len(text)
    byte_ids = array("I", [NO_TOKEN]) * 256
    for token, text in enumerate(tokens):
        is_byte = token in tokenizer.merged_ids if tokenizer.kind == Kind.BYTE_LEVEL else flags[token] & BYTE
        if is_byte and len(text) == 1:
            byte_ids[text[0]] = token
    added = array("I", sorted((i for i, flag in enumerate(flags) if flag & ADDED), key=tokens.__getitem__))
    plain = (token for token in sorted(tokenizer.merged_ids) if not flags[token] & SPECIAL)
    hashed = _hash_table([(token, tokens[token]) for token in plain])
    header = _header(tokenizer, NO_TOKEN in byte_ids, rows, len(csr) // 3, len(added), len(hashed), offsets[rows])
    words = [_little_endian(part) for part in (offsets, row_of_left, csr, hashed, byte_ids, added)]
    return b"".join([header, *words, bytes(flag & ~BYTE for flag in flags), *tokens])


def check_token_sizes(tokens: Sequence[bytes]) -> None:
    """Raise TokenizerError naming the first token that has more bytes than one may have."""
    for token, text in enumerate(tokens):
        if len(text) > MAX_TOKEN_BYTES:
            raise TokenizerError(f"token {token} has {len(text)} bytes; {MAX_TOKEN_BYTES} are the most")


def _header(tokenizer: "CheckpointTokenizer", lacks_bytes: bool, *counts: int) -> bytes:
    """Of version 1 where that can say it, so that older programs read it too."""
    rows, *rest = counts
    flags = IGNORE_MERGES * tokenizer.ignore_merges + STRIP_LEADING_SPACE * tokenizer.strip_leading_space
    form = (tokenizer.kind, tokenizer.normalizer, tokenizer.space_prefix)
    is_first = tokenizer.pre_tokenizer == PreTokenizer.LLAMA3 and form == (Kind.BYTE_LEVEL, Normalizer.NONE, 0)
    version = 1 if is_first and not lacks_bytes else 2
    return struct.pack("<11I20x", version, rows, tokenizer.pre_tokenizer, flags, *rest, *form)


def _merge_rows(tokenizer: "CheckpointTokenizer", flags: bytes) -> "tuple[array[int], array[int]]":
    """Where each left token's merges begin, and (right, rank, merged) of each merge, by left and right token.

    Merges that give a special token are left out: they would make one of what somebody wrote. Where special tokens are
    recognised, their names are split off before merging, so no such merge is ever met.
    """
    merges, rank_of = tokenizer.merges, _ranks(tokenizer)
    # A pair is one number, which sorts as the pair does. As in `tokenizers`, the last of a pair named twice counts.
    ranked = {
        left << 32 | right: rank for rank, (left, right, merged) in enumerate(merges) if not flags[merged] & SPECIAL
    }
    pairs = sorted(ranked)
    ranks = [ranked[pair] for pair in pairs]
    row_of_left = array("I", bytes(4 * (len(flags) + 1)))
    for pair in pairs:
        row_of_left[(pair >> 32) + 1] += 1
    for left in range(len(flags)):
        row_of_left[left + 1] += row_of_left[left]
    csr = array("I", bytes(12 * len(pairs)))
    csr[0::3] = array("I", [pair & 0xFFFFFFFF for pair in pairs])
    csr[1::3] = array("I", [rank_of[rank] for rank in ranks])
    csr[2::3] = array("I", [merges[rank][2] for rank in ranks])
    return row_of_left, csr


def _ranks(tokenizer: "CheckpointTokenizer") -> Sequence[int]:
    """The rank of each merge: its place, or that of the first one whose token has the same score."""
    if tokenizer.scores is None:
        return range(len(tokenizer.merges))
    ranks, first = list(range(len(tokenizer.merges))), 0
    for place, (_, _, merged) in enumerate(tokenizer.merges):
        if tokenizer.scores[merged] != tokenizer.scores[tokenizer.merges[first][2]]:
            first = place
        ranks[place] = first
    return ranks


def _hash_table(entries: Sequence[tuple[int, bytes]]) -> "array[int]":
    """Open addressing; a power of two of slots, at most half of them taken. The hash is one big number's remainder."""
    bits = max(1, (2 * len(entries) - 1).bit_length())
    mask = (1 << bits) - 1
    table = array("I", [NO_TOKEN]) * (1 << bits)
    for token, text in entries:
        slot = (int.from_bytes(text, "big") % 0x7FFFFFFF * 0x9E3779B1 & 0xFFFFFFFF) >> (32 - bits)
        while table[slot] != NO_TOKEN:
            slot = slot + 1 & mask
        table[slot] = token
    return table


def _little_endian(words: "array[int]") -> bytes:
    if words.itemsize != 4:
        raise AssertionError("array('I') is expected to hold 32-bit words")
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()
