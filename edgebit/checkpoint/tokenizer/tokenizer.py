"""What a model file needs to know of a tokenizer, whichever file it was read from."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgebit.checkpoint.tokenizer.forms import Kind, Normalizer, PreTokenizer, SpacePrefix
from edgebit.checkpoint.tokenizer.section import tokenizer_section


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointTokenizer:
    """A BPE tokenizer with all that a model file needs to know of it."""

    kind: Kind = Kind.BYTE_LEVEL
    pre_tokenizer: PreTokenizer = PreTokenizer.LLAMA3
    normalizer: Normalizer = Normalizer.NONE
    space_prefix: SpacePrefix = SpacePrefix.NONE
    strip_leading_space: bool = False  # of decoded text, one
    unknown_token: int | None = None  # its name only: every byte has a token
    tokens: tuple[bytes, ...]  # by id, the bytes of the text they stand for; b"" where an id has no token
    flags: bytes  # by id: SPECIAL, ADDED, UNUSED, NORMALIZED (is found in normalized text), BYTE
    merges: tuple[tuple[int, int, int], ...]  # (left, right, merged) by rank
    scores: tuple[float, ...] | None = None  # by id: merges that give tokens of one score have one rank
    ignore_merges: bool  # a piece that is a token is taken whole
    merged_ids: frozenset[int]  # the tokens that text can become: all but those only added, and BYTE
    bos_token: int | None  # put before a prompt
    stop_tokens: tuple[int, ...]
    named_tokens: Mapping[str, str]  # bos_token, eos_token ...: as a chat template sees them
    chat_template: str | None  # Jinja

    def section(self, vocab_size: int | None = None) -> bytes:
        """The TOKN section (docs/model-format.md), with `vocab_size` rows; the model may have more than the tokenizer.

        Raises TokenizerError where the tokenizer has tokens that the model has no row for.
        """
        return tokenizer_section(self, vocab_size)
