"""Perplexity: how well a model foresees each next token of a text."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgebit.evaluate.progress import Report, go_on
from edgebit.evaluate.text import ScoredText
from edgebit.evaluate.windows import Block, Floats, Windows, next_token_blocks
from edgebit.runtime.engine import Engine

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model said of the tokens of a text from place `first` on; arrays of one number a token."""

    first: int
    log_prob: Floats
    rank: Integers  # 1: none is likelier
    best: Integers  # the likeliest token, the lowest id where there are several
    best_log_prob: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """What a text came to. Of a part of it where not `complete`."""

    tokens: int  # scored
    bytes: int | None  # that they stand for
    nll: float  # mean negative log-likelihood, nats a token
    nll_error: float | None  # standard error of that mean; None where the tokens are too few
    windows: Windows
    seconds: float
    complete: bool

    @property
    def perplexity(self) -> float:
        """e to the mean negative log-likelihood."""
        return perplexity_of(self.nll)

    @property
    def perplexity_error(self) -> float | None:
        """Its standard error, to first order."""
        return None if self.nll_error is None else self.perplexity * self.nll_error

    @property
    def bits_per_byte(self) -> float | None:
        """The same for any tokenizer: bits that each byte of the text would take. None where bytes are not known."""
        return self.nll * self.tokens / (math.log(2) * self.bytes) if self.bytes else None


def perplexity_of(nll: float) -> float:
    """e to a mean negative log-likelihood, as far as a number can be as large: 8e307."""
    return math.exp(min(nll, 709.0))


def measure_perplexity(
    engine: Engine,
    text: ScoredText,
    windows: Windows,
    *,
    report: Report = go_on,
    each: Callable[[TokenScores], None] | None = None,
) -> Perplexity:
    """Score the text by sliding windows. `each` is given the tokens' own numbers, in order."""
    started = time.monotonic()
    found: list[Floats] = []
    total, done, nll, complete = text.scored, 0, 0.0, True
    for block in next_token_blocks(engine, text.ids, windows):
        scores = score(block, text.ids)
        if each is not None:
            each(scores)
        found.append(scores.log_prob)
        done, nll = done + len(scores.log_prob), nll - float(scores.log_prob.sum())
        if not report(done, total, perplexity_of(nll / done)) and done < total:
            complete = False
            break
    scored = np.concatenate(found)
    return Perplexity(
        tokens=done,
        bytes=text.size(1, 1 + done),
        nll=float(-scored.mean()),
        nll_error=standard_error(scored),
        windows=windows,
        seconds=time.monotonic() - started,
        complete=complete,
    )


def score(block: Block, ids: list[int]) -> TokenScores:
    """The numbers of a block's own tokens."""
    rows = np.arange(len(block.log_probs))
    targets = np.array(ids[block.first : block.end], dtype=np.int64)
    log_prob = block.log_probs[rows, targets]
    best = block.log_probs.argmax(axis=1)
    return TokenScores(
        first=block.first,
        log_prob=log_prob,
        rank=1 + (block.log_probs > log_prob[:, None]).sum(axis=1),
        best=best,
        best_log_prob=block.log_probs[rows, best],
    )


def standard_error(values: Floats) -> float | None:
    """Of the mean of values that follow each other in a text, and so are not independent; None for fewer than 16.

    By the means of blocks of sqrt(n) values. Source: Flegal and Jones 2010 (arXiv:0811.1729), batch means.
    """
    length = math.isqrt(len(values))
    if length < 4:
        return None
    count = len(values) // length
    means = values[: count * length].reshape(count, length).mean(axis=1)
    return float(means.std(ddof=1) / math.sqrt(count))
