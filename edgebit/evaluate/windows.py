"""Sliding windows over a text, and the log-probabilities that a model gives each next token of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgebit.errors import EdgebitError
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model

WINDOW = 2048  # tokens, or the model's context where that is less
_BLOCK_BYTES = 16 << 20  # of log-probabilities that are in memory at once

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Windows:
    """How a text is cut: each window holds `length` tokens and begins `stride` after the one before.

    Each token is scored once, in the first window that holds it, with at least length - stride tokens before it (or all
    there are). Source: transformers documentation, "Perplexity of fixed-length models".
    """

    length: int
    stride: int

    @classmethod
    def of(cls, model: Model, length: int | None, stride: int | None) -> "Windows":
        """As asked for; by default as long as the context, at most 2048 tokens, and half of that apart.

        Raises EdgebitError where that is more than the model's context, or leaves a token without context.
        """
        most = model.info.context_max
        length = min(WINDOW, most) if length is None else length
        if not 2 <= length <= most:
            raise EdgebitError(f"a window of {length} tokens: the model takes 2 to {most}. Give another --window")
        stride = max(length // 2, 1) if stride is None else stride
        if not 1 <= stride < length:
            raise EdgebitError(f"a stride of {stride} tokens: it must be 1 to {length - 1}, less than the window")
        return cls(length, stride)

    def cut(self, count: int) -> Iterator["Window"]:
        """The windows of a text of `count` tokens."""
        scored = 1  # the first has no context
        for begin in range(0, count, self.stride):
            end = min(begin + self.length, count)
            yield Window(begin, scored, end)
            scored = end
            if end == count:
                return


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens begin to end - 1 are read; of them, first to end - 1 are scored."""

    begin: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """What a model says of some tokens that follow each other in a text, from place `first` on."""

    first: int
    log_probs: Floats  # [tokens, vocabulary], natural; valid until the next block

    @property
    def end(self) -> int:
        """The place after the last of them."""
        return self.first + len(self.log_probs)


def open_engine(model: Model, windows: Windows, *, threads: int, kv: str) -> Engine:
    """An engine for next_token_blocks(); EngineError where memory is short."""
    return Engine(model, ctx_len=windows.length, threads=threads, batch_len=BATCH_LEN, logits_rows=BATCH_LEN, kv=kv)


def next_token_blocks(engine: Engine, ids: Sequence[int], windows: Windows) -> Iterator[Block]:
    """Each token of `ids` but the first, scored once, in order; a block but the first may be empty: context alone.

    The engine's results hang on the tokens of a window alone: not on how they are cut into passes, nor on threads.
    """
    block_rows = max(1, _BLOCK_BYTES // (8 * engine.model.info.vocab_size))
    for window in windows.cut(len(ids)):
        engine.truncate()
        for begin in range(window.begin, window.end - 1, BATCH_LEN):
            end = min(begin + BATCH_LEN, window.end - 1)
            wanted = [place + 1 >= window.first for place in range(begin, end)]
            engine.eval_batch(ids[begin:end], [0] * (end - begin), wanted)
            rows, first = sum(wanted), end + 1 - sum(wanted)
            for row in range(0, max(rows, 1), block_rows):
                count = min(block_rows, rows - row)
                yield Block(first + row, log_probs(engine, row, count, where=first + row))


def log_probs(engine: Engine, row: int, count: int, *, where: int) -> Floats:
    """log-softmax of `count` rows of the engine's logits from `row` on, in float64.

    Raises EdgebitError where they are no numbers, naming the place of the token.
    """
    values = np.empty((count, engine.model.info.vocab_size))
    for i in range(count):
        values[i] = np.asarray(engine.logits(row + i))
    values -= values.max(axis=1, keepdims=True)
    sums = np.exp(values).sum(axis=1, keepdims=True)
    if not np.isfinite(sums).all():
        raise EdgebitError(
            f"{engine.model.source}: the logits before token {where + int(np.argmin(np.isfinite(sums)))} are no numbers"
        )
    values -= np.log(sums)
    return values


def computed_tokens(engine: Engine) -> int:
    """Tokens that the engine has read since it was opened."""
    stats = engine.stats()
    return stats.prefill_tokens + stats.decode_tokens
