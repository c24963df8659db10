"""Vocabularies as SentencePiece and GGUF keep them: a list of pieces by id, each with a type, and often a score."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from edgebit.errors import TokenizerError

_MAX_CUTTING = 1 << 28  # characters read while tokens are cut in two everywhere; Gemma's 262,144 tokens take 2^24


class PieceType(IntEnum):
    """What a piece is; the numbers are those of SentencePiece's protobuf and of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4  # recognised in every text
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Pieces:
    """The same as a tokenizer.json has it."""

    vocab: dict[str, int]
    added: list[dict[str, Any]]  # as `added_tokens`: control, unknown (both special) and user-defined ones

    @property
    def ids(self) -> dict[str, int]:
        return self.vocab | {entry["content"]: entry["id"] for entry in self.added}


def sort_pieces(texts: Sequence[str], types: Sequence[int]) -> Pieces:
    """By type; unused pieces are left out. Raises TokenizerError at two ordinary pieces of one text."""
    pieces = Pieces({}, [])
    for token, (text, number) in enumerate(zip(texts, types, strict=True)):
        if number not in PieceType.__members__.values():
            raise TokenizerError(f"token {token}, {text!r}, has type {number}: types go from 1 to 6")
        if number in (PieceType.NORMAL, PieceType.BYTE):
            if text in pieces.vocab:
                raise TokenizerError(f"tokens {pieces.vocab[text]} and {token} are both {text!r}")
            pieces.vocab[text] = token
        elif number != PieceType.UNUSED:
            special = number != PieceType.USER_DEFINED
            pieces.added.append({"content": text, "id": token, "special": special, "normalized": False})
    return pieces


def merges_by_score(
    vocab: Mapping[str, int], scores: Sequence[float], merged_ids: frozenset[int]
) -> tuple[tuple[int, int, int], ...]:
    """(left, right, merged) of every way that two pieces give a third, the highest score first.

    SentencePiece's BPE merges the neighbours that give the piece of the highest score; the leftmost among equals.
    """
    if not all(map(math.isfinite, scores)):
        raise TokenizerError("the tokens' scores are not all finite")
    if len(scores) <= max(vocab.values(), default=0):
        raise TokenizerError(f"{len(scores)} scores: token {max(vocab.values())} has none")
    if sum(len(text) ** 2 for text in vocab) > _MAX_CUTTING:
        raise TokenizerError("the tokens are too long to look for all their merges")
    merges = [
        (vocab[text[:cut]], vocab[text[cut:]], token)
        for text, token in vocab.items()
        if token in merged_ids
        for cut in range(1, len(text))
        if vocab.get(text[:cut]) in merged_ids and vocab.get(text[cut:]) in merged_ids
    ]
    return tuple(sorted(merges, key=lambda merge: (-scores[merge[2]], merge[2])))
