"""A vocabulary as `tokenizers` writes it, as the bytes that its tokens stand for."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebit.checkpoint.tokenizer.byte_alphabet import byte_level_bytes
from edgebit.checkpoint.tokenizer.forms import (
    ADDED,
    BYTE,
    MAX_VOCAB,
    NORMALIZED,
    SPECIAL,
    UNUSED,
    Kind,
    Normalizer,
    SpacePrefix,
)
from edgebit.checkpoint.tokenizer.text_form import SPACE_MARK, TextForm
from edgebit.errors import TokenizerError

_MAX_COMPARING = 1 << 24  # characters of added tokens
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The fields of CheckpointTokenizer with these names."""

    tokens: tuple[bytes, ...]
    flags: bytes
    merged_ids: frozenset[int]


def read_vocabulary(form: TextForm, vocab: Mapping[str, int], entries: Sequence[dict[str, Any]]) -> Vocabulary:
    """From `vocab` and `added_tokens` of a tokenizer.json; TokenizerError where the two cannot be carried over."""
    ids = [*vocab.values(), *(entry["id"] for entry in entries)]
    top = max(ids, default=-1)
    if not 256 <= top + 1 <= MAX_VOCAB or min(ids) < 0:
        raise TokenizerError(f"token ids go up to {top}: there must be 256 to {MAX_VOCAB} of them")
    tokens, flags = [b""] * (top + 1), bytearray([UNUSED]) * (top + 1)
    merged_ids = _put_vocab(form.kind, vocab, tokens, flags)
    _put_added(form, vocab, entries, tokens, flags)
    if form.normalizer == Normalizer.NONE:
        _check_overlaps(entries)
    return Vocabulary(tuple(tokens), bytes(flags), frozenset(merged_ids))


def _put_vocab(kind: Kind, vocab: Mapping[str, int], tokens: list[bytes], flags: bytearray) -> set[int]:
    """Sets bytes and flags by id; gives the ids that merging can give."""
    merged_ids = set()
    for text, token in vocab.items():
        if not text:
            continue
        if tokens[token]:
            raise TokenizerError(f"token id {token} is given twice, to {text!r} and to another")
        tokens[token], flags[token], is_merged = _bytes_of(kind, text)
        if is_merged:
            merged_ids.add(token)
    return merged_ids


def _bytes_of(kind: Kind, text: str) -> tuple[bytes, int, bool]:
    """A token's bytes and flags, and whether symbols of a text can merge to it."""
    if kind == Kind.BYTE_FALLBACK:
        if byte := _BYTE_TOKEN.fullmatch(text):
            return bytes.fromhex(byte[1]), BYTE, False
        return text.replace(SPACE_MARK, " ").encode(), 0, " " not in text  # every space has become a mark before
    try:
        return byte_level_bytes(text), 0, True
    except ValueError:  # no pair of bytes merges to it; where it is decoded, it stands for itself
        return text.encode(), 0, False


def _put_added(
    form: TextForm,
    vocab: Mapping[str, int],
    entries: Sequence[dict[str, Any]],
    tokens: list[bytes],
    flags: bytearray,
) -> None:
    for entry in {entry["content"]: entry for entry in entries}.values():
        content, token = entry["content"], entry["id"]
        flag = _flags_of_added(form, entry, vocab)
        if not content:
            continue
        if content not in vocab and tokens[token]:
            raise TokenizerError(f"token id {token} is given twice, to {content!r} and {tokens[token]!r}")
        if content in vocab and tokens[token] != content.encode():
            raise TokenizerError(f"added token {content!r} stands for other bytes in the vocabulary: {tokens[token]!r}")
        tokens[token], flags[token] = content.encode(), flag


def _flags_of_added(form: TextForm, entry: dict[str, Any], vocab: Mapping[str, int]) -> int:
    name, token = entry["content"], entry["id"]
    for key in ("lstrip", "rstrip", "single_word"):
        if entry.get(key):
            raise TokenizerError(f"added token {name!r} has {key}: that is not supported")
    if vocab.get(name, token) != token:
        raise TokenizerError(f"added token {name!r} has id {token}, but {vocab[name]} in the vocabulary")
    flag = ADDED | (SPECIAL if entry.get("special") else 0)
    if entry.get("normalized", False) and form.space_prefix == SpacePrefix.SEGMENT:
        raise TokenizerError(
            f"added token {name!r} has normalized: it is found only behind the space that is put before text. "
            "Where it is meant to be found anywhere, set its normalized to false"
        )
    if not entry.get("normalized", False) or form.normalizer == Normalizer.NONE:
        return flag
    if flag & SPECIAL or unicodedata.normalize("NFC", name) != name:
        raise TokenizerError(f"added token {name!r} is special or not NFC, and is to be found in normalized text")
    return flag | NORMALIZED


def _check_overlaps(entries: Sequence[dict[str, Any]]) -> None:
    """`tokenizers` splits off the not normalized added tokens first, then the normalized: we split off all at once.

    It is the same unless a name of one kind can overlap with a name of the other in a text: then TokenizerError.
    """
    first = [entry["content"] for entry in entries if not entry.get("normalized", False)]
    second = [entry["content"] for entry in entries if entry.get("normalized", False)]
    if len(second) * sum(map(len, first)) + len(first) * sum(map(len, second)) > _MAX_COMPARING:
        raise TokenizerError(f"{len(second)} normalized added tokens beside {len(first)} others: too many to compare")
    for a in first:
        for b in second:
            shorter = min(len(a), len(b))
            if a in b or b in a or any(a[-n:] == b[:n] or b[-n:] == a[:n] for n in range(1, shorter)):
                raise TokenizerError(f"added tokens {a!r} and {b!r} (normalized) can overlap: not supported")


def bytes_without_token(kind: Kind, vocabulary: Vocabulary) -> set[int]:
    """Bytes that text can hold and no token stands for."""
    tokens, flags = vocabulary.tokens, vocabulary.flags
    if kind == Kind.BYTE_LEVEL:
        return set(range(256)) - {tokens[token][0] for token in vocabulary.merged_ids if len(tokens[token]) == 1}
    return set(range(256)) - {tokens[token][0] for token, flag in enumerate(flags) if flag & BYTE}


def read_merges(
    merges: Sequence[Any], vocab: Mapping[str, int], merged_ids: frozenset[int]
) -> Iterable[tuple[int, int, int]]:
    """(left, right, merged) of each merge, which stands as "a b" or as ["a", "b"]."""
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2:
            raise TokenizerError(f"merge {rank} is {merge!r}, not two tokens")
        left, right = parts
        try:
            ids = vocab[left], vocab[right], vocab[left + right]
        except KeyError as error:
            raise TokenizerError(f"merge {rank}, {merge!r}, needs {error}, which is not in the vocabulary") from None
        if not merged_ids.issuperset(ids):
            raise TokenizerError(f"merge {rank}, {merge!r}, has characters that stand for no byte, or byte tokens")
        yield ids
