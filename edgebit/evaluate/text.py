"""The text that is scored: tokens as a model reads them, and how many bytes each stands for."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgebit.errors import EdgebitError
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ScoredText:
    """Tokens in the order they are read. The first is context only: begin-of-text, or else the text's own first."""

    name: str
    ids: list[int]
    has_bos: bool
    pieces: dict[int, bytes] | None  # the bytes of each token that occurs; None: the model has no tokenizer

    @property
    def scored(self) -> int:
        """Tokens that something stands before."""
        return len(self.ids) - 1

    def size(self, first: int, end: int) -> int | None:
        """Bytes that tokens first to end - 1 stand for; None where that is not known."""
        if self.pieces is None:
            return None
        return sum(len(self.pieces[token]) for token in self.ids[first:end])

    def words(self, first: int, end: int) -> str | None:
        """The text of tokens first to end - 1, with U+FFFD for parts of characters; None where it is not known."""
        if self.pieces is None:
            return None
        return b"".join(self.pieces[token] for token in self.ids[first:end]).decode(errors="replace")


def encode_text(model: Model, data: bytes, *, name: str, bos: bool = True, limit: int | None = None) -> ScoredText:
    """Tokens of a UTF-8 text; names of special tokens in it stay text.

    bos: begin-of-text goes first, where the model has such a token
    limit: of so many tokens only, the first ones
    Raises EdgebitError where the text is empty, too short or no UTF-8, or the model has no tokenizer.
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise EdgebitError(
            f"{name}: byte {error.start} is no UTF-8 ({error.reason}). Save the text as UTF-8"
        ) from error
    if not data.strip():
        raise EdgebitError(f"{name}: there is no text in it")
    if model.section("TOKN") is None:
        raise EdgebitError(f"{model.source} has no tokenizer. Give the text as token ids: --token-ids FILE")
    with Tokenizer.from_model(model) as tokenizer:
        ids = tokenizer.encode(data)
        pieces = {token: tokenizer.token_bytes(token) for token in set(ids)}
    begin = [model.info.bos_token] if bos and model.info.bos_token is not None else []
    return _text(begin, ids, pieces, name=name, limit=limit)


def take_ids(model: Model, ids: Sequence[int], *, name: str, limit: int | None = None) -> ScoredText:
    """The same of token ids as they are: begin-of-text is not put first.

    Raises EdgebitError where one is outside the vocabulary, or there are too few.
    """
    for place, token in enumerate(ids):
        if not 0 <= token < model.info.vocab_size:
            raise EdgebitError(
                f"{name}: id {token} at place {place} is outside the vocabulary of {model.info.vocab_size}"
            )
    pieces = None
    if model.section("TOKN") is not None:
        with Tokenizer.from_model(model) as tokenizer:
            pieces = {token: tokenizer.token_bytes(token) for token in set(ids) if token < tokenizer.vocab_size}
        if len(pieces) < len(set(ids)):
            pieces = None
    return _text([], list(ids), pieces, name=name, limit=limit)


def _text(
    begin: list[int], ids: list[int], pieces: dict[int, bytes] | None, *, name: str, limit: int | None
) -> ScoredText:
    text = ScoredText(name, begin + ids[:limit], bool(begin), pieces)
    if text.scored < 1:
        raise EdgebitError(
            f"{name}: nothing to score: each token is scored by what stands before it. Give two tokens or more"
        )
    return text
