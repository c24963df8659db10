"""Two tokenizers compared: what makes one text get other ids."""

from collections.abc import Iterator
from enum import IntEnum
from itertools import zip_longest

from edgebit.checkpoint.tokenizer import ADDED, SPECIAL, UNUSED, CheckpointTokenizer

_SETTINGS = (
    "kind", "pre_tokenizer", "normalizer", "space_prefix", "strip_leading_space", "unknown_token", "ignore_merges",
)  # fmt: skip
_SHOWN = 5  # of a list of texts


def tokenizer_differences(a: CheckpointTokenizer | None, b: CheckpointTokenizer | None) -> Iterator[tuple[str, str]]:
    """(what, how it differs), the cause before what follows from it. Rows that no token has are the same as none."""
    if a is None or b is None:
        if a is not b:
            yield "tokenizer", f"only the {'first' if b is None else 'second'} has one"
        return
    rows = max(len(a.tokens), len(b.tokens))
    if a.section(rows) != b.section(rows):
        causes = [*_vocabulary(a, b), *_added_tokens(a, b), *_settings(a, b), *_merges(a, b)]
        yield from causes or [("section TOKN", "other bytes from what the files say of merges")]
    if a.bos_token != b.bos_token:
        yield "begin-of-text", f"{_named(a, a.bos_token)} and {_named(b, b.bos_token)}"


def _vocabulary(a: CheckpointTokenizer, b: CheckpointTokenizer) -> Iterator[tuple[str, str]]:
    ids = [token for token, (one, other) in enumerate(zip_longest(a.tokens, b.tokens, fillvalue=b"")) if one != other]
    if ids:
        first = ids[0]
        yield (
            "vocabulary",
            (f"{len(ids):,} ids stand for other texts, the first {first}: {_named(a, first)} and {_named(b, first)}"),
        )


def _settings(a: CheckpointTokenizer, b: CheckpointTokenizer) -> Iterator[tuple[str, str]]:
    for name in _SETTINGS:
        one, other = getattr(a, name), getattr(b, name)
        if one != other:
            words = [each.name.lower() if isinstance(each, IntEnum) else str(each) for each in (one, other)]
            yield name.replace("_", " "), " and ".join(words)


def _added_tokens(a: CheckpointTokenizer, b: CheckpointTokenizer) -> Iterator[tuple[str, str]]:
    for name, flag in (("added tokens", ADDED), ("special tokens", SPECIAL)):
        one, other = _with_flag(a, flag), _with_flag(b, flag)
        parts = [
            f"only the {which} has {_listed(only)}"
            for which, only in (("first", one - other), ("second", other - one))
            if only
        ]
        if parts:
            yield name, "; ".join(parts)


def _merges(a: CheckpointTokenizer, b: CheckpointTokenizer) -> Iterator[tuple[str, str]]:
    """Of those that a text can meet: of a pair that is named twice the last, and none that give a special token."""
    one, other = _met(a), _met(b)
    if one == other:
        return
    rank = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))
    first, second = (_pair(merges[rank]) if rank < len(merges) else "none" for merges in (one, other))
    yield "merges", f"{len(one):,} and {len(other):,}, the first that differs of rank {rank}: {first} and {second}"


def _met(tokenizer: CheckpointTokenizer) -> list[tuple[bytes, bytes]]:
    last = {
        (left, right): rank
        for rank, (left, right, merged) in enumerate(tokenizer.merges)
        if not tokenizer.flags[merged] & SPECIAL
    }
    return [(tokenizer.tokens[left], tokenizer.tokens[right]) for left, right in sorted(last, key=last.__getitem__)]


def _pair(pair: tuple[bytes, bytes]) -> str:
    return " + ".join(repr(part.decode(errors="replace")) for part in pair)


def _with_flag(tokenizer: CheckpointTokenizer, flag: int) -> set[bytes]:
    return {
        text
        for text, flags in zip(tokenizer.tokens, tokenizer.flags, strict=True)
        if flags & flag and not flags & UNUSED
    }


def _listed(texts: set[bytes]) -> str:
    shown = ", ".join(repr(text.decode(errors="replace")) for text in sorted(texts)[:_SHOWN])
    return shown + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def _named(tokenizer: CheckpointTokenizer, token: int | None) -> str:
    if token is None or token >= len(tokenizer.tokens) or not tokenizer.tokens[token]:
        return "none"
    return f"{token} {tokenizer.tokens[token].decode(errors='replace')!r}"
