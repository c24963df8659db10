"""Section TOKN of a model file, read back to the tokenizer that it was written from. Standard library only."""

import struct
import sys
from array import array
from collections.abc import Mapping

from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.errors import TokenizerError

_HEADER = struct.Struct("<8I32x")
_VERSION, _PRE_TOKENIZER_LLAMA3, _IGNORE_MERGES = 1, 1, 1
_EMPTY = 0xFFFFFFFF


def read_tokenizer_section(
    content: bytes,
    *,
    bos_token: int | None,
    stop_tokens: tuple[int, ...],
    named_tokens: Mapping[str, str] | None,
    chat_template: str | None,
) -> CheckpointTokenizer:
    """The tokenizer of a TOKN section (docs/model-format.md): every text gets the same ids from both.

    What the section has no place for is given: without `named_tokens`, begin-of-text and the first stop token are
    bos_token and eos_token. Raises TokenizerError where the section is damaged or of another kind.
    """
    if len(content) < _HEADER.size:
        raise TokenizerError(f"{len(content)} bytes are no tokenizer")
    version, n_tokens, pre_tokenizer, flags, n_merges, n_added, n_slots, size = _HEADER.unpack_from(content)
    if version != _VERSION or pre_tokenizer != _PRE_TOKENIZER_LLAMA3 or flags & ~_IGNORE_MERGES:
        raise TokenizerError(
            f"version {version}, pre-tokenizer {pre_tokenizer}, flags {flags}: not all known. Use a newer edgebit"
        )
    counts = (n_tokens + 1, n_tokens + 1, 3 * n_merges, n_slots, 256, n_added)
    needed = _HEADER.size + 4 * sum(counts) + n_tokens + size
    if len(content) != needed:
        raise TokenizerError(f"has {len(content)} bytes; its counts ask for {needed}")
    words, position = [], _HEADER.size
    for count in counts:
        words.append(_words(content[position : position + 4 * count]))
        position += 4 * count
    offsets, row_of_left, merges, hashed, _, _ = words
    token_flags = content[position : position + n_tokens]
    tokens = _tokens(offsets, content[position + n_tokens :])
    ids = {token for token in hashed if token != _EMPTY}
    if max(ids, default=0) >= n_tokens:
        raise TokenizerError(f"the hash holds token {max(ids)} of {n_tokens}")
    named = {"bos_token": bos_token, "eos_token": stop_tokens[0] if stop_tokens else None}
    return CheckpointTokenizer(
        tokens=tokens,
        flags=token_flags,
        merges=_merges(row_of_left, merges, n_tokens),
        ignore_merges=bool(flags & _IGNORE_MERGES),
        merged_ids=frozenset(ids),
        bos_token=bos_token,
        stop_tokens=stop_tokens,
        named_tokens=named_tokens
        if named_tokens is not None
        else {name: tokens[token].decode(errors="replace") for name, token in named.items() if token is not None},
        chat_template=chat_template,
    )


def _words(data: bytes) -> "array[int]":
    words = array("I", data)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _tokens(offsets: "array[int]", data: bytes) -> tuple[bytes, ...]:
    if list(offsets) != sorted(offsets) or offsets[0] != 0 or offsets[-1] != len(data):
        raise TokenizerError("the tokens' offsets are out of order")
    return tuple(data[offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1))


def _merges(row_of_left: "array[int]", merges: "array[int]", n_tokens: int) -> tuple[tuple[int, int, int], ...]:
    """(left, right, merged) of each merge, the lowest rank first."""
    if list(row_of_left) != sorted(row_of_left) or row_of_left[0] != 0 or row_of_left[-1] != len(merges) // 3:
        raise TokenizerError("the rows of merges are out of order")
    ranked = []
    for left in range(n_tokens):
        for row in range(row_of_left[left], row_of_left[left + 1]):
            right, rank, merged = merges[3 * row : 3 * row + 3]
            if max(right, merged) >= n_tokens:
                raise TokenizerError(f"a merge has token {max(right, merged)} of {n_tokens}")
            ranked.append((rank, left, right, merged))
    return tuple((left, right, merged) for _, left, right, merged in sorted(ranked))
