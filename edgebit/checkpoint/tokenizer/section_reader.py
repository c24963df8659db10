"""Section TOKN of a model file, read back to the tokenizer that it was written from. Standard library only."""

import struct
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

from edgebit.checkpoint.tokenizer.forms import (
    ADDED,
    BYTE,
    IGNORE_MERGES,
    NO_TOKEN,
    STRIP_LEADING_SPACE,
    Kind,
    Normalizer,
    PreTokenizer,
    SpacePrefix,
)
from edgebit.checkpoint.tokenizer.section import check_token_sizes
from edgebit.checkpoint.tokenizer.tokenizer import CheckpointTokenizer
from edgebit.errors import TokenizerError

_HEADER = struct.Struct("<16I")


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
    header = _read_header(content)
    offsets, row_of_left, merges, hashed, byte_ids, _ = header.words_of(content)
    n_tokens, start = header.n_tokens, header.size - header.text_size - header.n_tokens
    tokens = _tokens(offsets, content[start + n_tokens :])
    token_flags, merged_ids = content[start : start + n_tokens], _ids(hashed, n_tokens, "the hash")
    byte_tokens, unknown = _ids(byte_ids, n_tokens, "the table of bytes"), None
    named = named_tokens if named_tokens is not None else _named(tokens, bos_token, stop_tokens)
    if header.kind == Kind.BYTE_LEVEL:
        merged_ids |= byte_tokens
    else:
        token_flags = _with_bytes(token_flags, tokens, byte_tokens)
        unknown = _added_token(tokens, token_flags, named.get("unk_token"))
    ranked = _ranked_merges(row_of_left, merges, n_tokens)
    return CheckpointTokenizer(
        kind=header.kind,
        pre_tokenizer=header.pre_tokenizer,
        normalizer=header.normalizer,
        space_prefix=header.space_prefix,
        strip_leading_space=bool(header.flags & STRIP_LEADING_SPACE),
        unknown_token=unknown,
        tokens=tokens,
        flags=token_flags,
        merges=tuple((left, right, merged) for _, left, right, merged in ranked),
        scores=_scores(ranked, n_tokens),
        ignore_merges=bool(header.flags & IGNORE_MERGES),
        merged_ids=frozenset(merged_ids),
        bos_token=bos_token,
        stop_tokens=stop_tokens,
        named_tokens=named,
        chat_template=chat_template,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    """What a section says of itself."""

    n_tokens: int
    flags: int
    n_merges: int
    n_added: int
    n_slots: int
    text_size: int
    pre_tokenizer: PreTokenizer
    kind: Kind
    normalizer: Normalizer
    space_prefix: SpacePrefix

    @property
    def counts(self) -> tuple[int, ...]:
        """Words of each part that is made of them."""
        return self.n_tokens + 1, self.n_tokens + 1, 3 * self.n_merges, self.n_slots, 256, self.n_added

    @property
    def size(self) -> int:
        """Bytes of the section."""
        return _HEADER.size + 4 * sum(self.counts) + self.n_tokens + self.text_size

    def words_of(self, content: bytes) -> "list[array[int]]":
        parts, position = [], _HEADER.size
        for count in self.counts:
            parts.append(_words(content[position : position + 4 * count]))
            position += 4 * count
        return parts


def _read_header(content: bytes) -> _Header:
    if len(content) < _HEADER.size:
        raise TokenizerError(f"{len(content)} bytes are no tokenizer")
    version, n_tokens, pre, flags, n_merges, n_added, n_slots, size, *form = _HEADER.unpack_from(content)
    known = IGNORE_MERGES if version == 1 else IGNORE_MERGES | STRIP_LEADING_SPACE
    try:
        if version not in (1, 2) or flags & ~known or any(form if version == 1 else form[3:]):
            raise ValueError
        header = _Header(
            n_tokens=n_tokens,
            flags=flags,
            n_merges=n_merges,
            n_added=n_added,
            n_slots=n_slots,
            text_size=size,
            pre_tokenizer=PreTokenizer(pre),
            kind=Kind(form[0]),
            normalizer=Normalizer(form[1]),
            space_prefix=SpacePrefix(form[2]),
        )
    except ValueError:
        raise TokenizerError(
            f"version {version}, pre-tokenizer {pre}, flags {flags}, form {form[:3]}: not all known. "
            "Use a newer edgebit"
        ) from None
    if len(content) != header.size:
        raise TokenizerError(f"has {len(content)} bytes; its counts ask for {header.size}")
    return header


def _words(data: bytes) -> "array[int]":
    words = array("I", data)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _tokens(offsets: "array[int]", data: bytes) -> tuple[bytes, ...]:
    if list(offsets) != sorted(offsets) or offsets[0] != 0 or offsets[-1] != len(data):
        raise TokenizerError("the tokens' offsets are out of order")
    tokens = tuple(data[offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1))
    check_token_sizes(tokens)
    return tokens


def _ids(words: "array[int]", n_tokens: int, where: str) -> set[int]:
    """The tokens that a table holds, some of whose places are empty."""
    ids = {token for token in words if token != NO_TOKEN}
    if max(ids, default=0) >= n_tokens:
        raise TokenizerError(f"{where} holds token {max(ids)} of {n_tokens}")
    return ids


def _with_bytes(flags: bytes, tokens: tuple[bytes, ...], byte_tokens: set[int]) -> bytes:
    """The tokens' flags, with BYTE for those that stand for one, which the section has in a table of its own."""
    for token in byte_tokens:
        if len(tokens[token]) != 1:
            raise TokenizerError(f"token {token} stands for a byte and has {len(tokens[token])}")
    return bytes(flag | BYTE if token in byte_tokens else flag for token, flag in enumerate(flags))


def _ranked_merges(row_of_left: "array[int]", merges: "array[int]", n_tokens: int) -> list[tuple[int, int, int, int]]:
    """(rank, left, right, merged) of each merge, the lowest rank first."""
    if list(row_of_left) != sorted(row_of_left) or row_of_left[0] != 0 or row_of_left[-1] != len(merges) // 3:
        raise TokenizerError("the rows of merges are out of order")
    ranked = []
    for left in range(n_tokens):
        for row in range(row_of_left[left], row_of_left[left + 1]):
            right, rank, merged = merges[3 * row : 3 * row + 3]
            if max(right, merged) >= n_tokens:
                raise TokenizerError(f"a merge has token {max(right, merged)} of {n_tokens}")
            ranked.append((rank, left, right, merged))
    return sorted(ranked)


def _scores(ranked: list[tuple[int, int, int, int]], n_tokens: int) -> tuple[float, ...] | None:
    """By token, where merges share ranks: the higher, the sooner its merges come."""
    if len({rank for rank, *_ in ranked}) == len(ranked):
        return None
    scores = [0.0] * n_tokens
    for rank, _, _, merged in ranked:
        scores[merged] = -float(rank)
    return tuple(scores)


def _named(tokens: tuple[bytes, ...], bos_token: int | None, stop_tokens: tuple[int, ...]) -> dict[str, str]:
    ids = {"bos_token": bos_token, "eos_token": stop_tokens[0] if stop_tokens else None}
    known = {name: token for name, token in ids.items() if token is not None and token < len(tokens)}
    return {name: tokens[token].decode(errors="replace") for name, token in known.items()}


def _added_token(tokens: tuple[bytes, ...], flags: bytes, name: str | None) -> int | None:
    """The added token that is called so."""
    if name is None:
        return None
    text = name.encode()
    return next((i for i, token in enumerate(tokens) if token == text and flags[i] & ADDED), None)
