"""How far what a model foresees is from a reference: KL divergence of their next-token distributions over a text."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from edgebit.errors import EdgebitError
from edgebit.evaluate.perplexity import Integers, score, standard_error
from edgebit.evaluate.progress import Report, go_on
from edgebit.evaluate.text import ScoredText
from edgebit.evaluate.windows import Block, Floats, Windows, next_token_blocks
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer

_WORST = 5  # places that are named


@dataclass(frozen=True, slots=True)
class Compared:
    """Tokens of a text, in order: what reference P and model Q made of each; arrays of one number a token."""

    kl: Floats  # sum over the vocabulary of p (ln p - ln q), nats
    log_p: Floats  # of the token that comes
    log_q: Floats
    best_p: Integers  # the likeliest token
    best_q: Integers

    @classmethod
    def joined(cls, parts: "list[Compared]") -> "Compared":
        """All of them, one after the other."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """What a text came to. Of a part of it where not `complete`."""

    tokens: int
    kl_mean: float  # nats a token
    kl_error: float | None  # standard error of that mean
    kl_median: float
    kl_99: float  # 99 % of the tokens are at or below it
    kl_max: float
    same_best: float  # the share of tokens before which both have the same likeliest token
    delta_p: float  # mean |p - q| of the token that comes
    nll: float  # of the model, nats a token
    reference_nll: float
    worst: list[int]  # places in the text where KL is greatest
    compared: Compared
    complete: bool


def check_vocabularies(model: Model, other: Model) -> None:
    """Raise EdgebitError where the same id is not the same token in both, naming the first."""
    sizes = model.info.vocab_size, other.info.vocab_size
    if sizes[0] != sizes[1]:
        raise EdgebitError(
            f"{model.source} has {sizes[0]} tokens and {other.source} {sizes[1]}: only models of one vocabulary compare"
        )
    if model.section("TOKN") is None or other.section("TOKN") is None:
        return
    with Tokenizer.from_model(model) as ours, Tokenizer.from_model(other) as theirs:
        for token in range(min(ours.vocab_size, theirs.vocab_size)):
            if ours.token_bytes(token) != theirs.token_bytes(token):
                raise EdgebitError(
                    f"token {token} is {ours.token_bytes(token)!r} in {model.source} and "
                    f"{theirs.token_bytes(token)!r} in {other.source}: only models of one vocabulary compare"
                )


def side_by_side(engine: Engine, reference: Engine, ids: list[int], windows: Windows) -> Iterator[Compared]:
    """Both models over one text, a block of tokens at a time; equal models give exactly 0."""
    ours, theirs = next_token_blocks(engine, ids, windows), next_token_blocks(reference, ids, windows)
    for block, its in zip(ours, theirs, strict=True):
        yield compare(its, block, ids)


def compare(reference: Block, block: Block, ids: list[int]) -> Compared:
    """Two whole distributions of the same tokens."""
    p, q = score(reference, ids), score(block, ids)
    kl = (np.exp(reference.log_probs) * (reference.log_probs - block.log_probs)).sum(axis=1)
    return Compared(_no_less_than_0(kl), p.log_prob, q.log_prob, p.best, q.best)


def compare_top(
    block: Block, ids: list[int], *, best: Integers, log_p: Floats, tokens: Integers, top: Floats, tail: Floats
) -> Compared:
    """A reference of which the likeliest tokens [n, k] are known, their ln p, and ln of what is left to all others.

    The others count as one token: KL is then at most that of the whole distributions, since no distance grows where
    outcomes are put together (the data processing inequality).
    """
    q = score(block, ids)
    rows = np.arange(len(tokens))[:, None]
    its_top = block.log_probs[rows, tokens]
    others = np.exp(block.log_probs)
    others[rows, tokens] = 0
    with np.errstate(divide="ignore"):
        its_tail = np.log(others.sum(axis=1))
    kl = (np.exp(top) * (top - its_top)).sum(axis=1)
    known = np.isfinite(tail)
    kl[known] += np.exp(tail[known]) * (tail[known] - its_tail[known])
    return Compared(_no_less_than_0(kl), log_p, q.log_prob, best, q.best)


def _no_less_than_0(kl: Floats) -> Floats:
    """What is below is rounding."""
    clipped: Floats = np.maximum(kl, 0)
    return clipped


def measure_divergence(parts: Iterator[Compared], text: ScoredText, *, report: Report = go_on) -> Divergence:
    """What side_by_side() or a reference's blocks come to. `report` is told the running mean KL."""
    found: list[Compared] = []
    done, total, kl = 0, text.scored, 0.0
    for part in parts:
        found.append(part)
        done, kl = done + len(part.kl), kl + float(part.kl.sum())
        if not report(done, total, kl / done):
            break
    return _summed(Compared.joined(found), complete=done == total)


def _summed(all_of_it: Compared, *, complete: bool) -> Divergence:
    kl, p, q = all_of_it.kl, np.exp(all_of_it.log_p), np.exp(all_of_it.log_q)
    order: npt.NDArray[np.intp] = np.argsort(-kl, kind="stable")
    return Divergence(
        tokens=len(kl),
        kl_mean=float(kl.mean()),
        kl_error=standard_error(kl),
        kl_median=float(np.median(kl)),
        kl_99=float(np.quantile(kl, 0.99, method="inverted_cdf")),
        kl_max=float(kl.max()),
        same_best=float((all_of_it.best_p == all_of_it.best_q).mean()),
        delta_p=float(np.abs(p - q).mean()),
        nll=float(-all_of_it.log_q.mean()),
        reference_nll=float(-all_of_it.log_p.mean()),
        worst=[1 + int(place) for place in order[:_WORST] if kl[place] > 0],
        compared=all_of_it,
        complete=complete,
    )
