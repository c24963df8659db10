"""What a session needs of an engine: tokens of several sequences in, logits out. engine.Engine is one."""

from collections.abc import Sequence
from typing import Protocol

from edgebit.runtime.abi import TokenSet
from edgebit.runtime.engine import EngineStats
from edgebit.runtime.model import Model
from edgebit.runtime.sequences import SequenceEngine


class TokenEngine(SequenceEngine, Protocol):
    """One thread at a time, but for cancel() and cancel_reset()."""

    @property
    def ctx_len(self) -> int:
        """Tokens that a sequence holds at most."""

    @property
    def sequences(self) -> int:
        """How many there are."""

    @property
    def isa(self) -> str:
        """The instructions that it computes with, in a word."""

    @property
    def kv(self) -> str:
        """How it holds keys and values: one of engine.KV_TYPES."""

    @property
    def keeps_memory(self) -> bool:
        """Whether a sequence keeps the memory that its tokens have taken once they are gone."""

    @property
    def threads_fixed(self) -> bool:
        """Whether it keeps the threads that it was opened with: set_threads() is not for it then."""

    def eval_batch(
        self,
        tokens: Sequence[int],
        sequences: Sequence[int],
        want_logits: Sequence[bool] | None = None,
        *,
        n_best: int = 0,
        allowed: Sequence[TokenSet | None] | None = None,
    ) -> None:
        """Append each token to its sequence, in order, and compute the wanted logits (None: of the last token).

        n_best: how many of the highest logits of each are needed; 0: all of them
        allowed: for each wanted row the set of tokens whose logits alone are needed, or None: all of them
        Raises ContextFullError, Cancelled (after cancel()), or EdgebitError; the sequences are then as before.
        """

    def logits(self, row: int = 0) -> "memoryview[float]":
        """Row `row` of the wanted logits, float32 [vocab_size], which can be written to; valid until the next eval."""

    def set_threads(self, threads: int) -> None:
        """Run on so many threads from the next pass on, at most those it was opened with."""

    def cancel(self) -> None:
        """End the pass in progress, or the next one. From any thread."""

    def cancel_reset(self) -> None:
        """Take back a cancel() that no pass has answered."""

    def stats(self) -> EngineStats:
        """What it has done since it was opened, and the memory held."""

    def close(self) -> None:
        """Give everything back."""


class EngineOpener(Protocol):
    """Opens an engine for a model: engine.Engine itself is one. Raises EdgebitError for what it cannot do."""

    def __call__(
        self,
        model: Model,
        *,
        ctx_len: int,
        sequences: int,
        threads: int,
        batch_len: int,
        logits_rows: int,
        kv: str,
    ) -> TokenEngine:
        """`logits_rows`: that one pass may want; ctx_len 0 takes the model's own maximum."""
