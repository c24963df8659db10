"""Log-likelihoods of continuations: what stands before them is computed once for all that share it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgebit.errors import EdgebitError
from edgebit.evaluate.windows import Floats, log_probs
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.runtime.sequences import shared_length
from edgebit.runtime.tokenizer import Tokenizer

Segment = tuple[str, bool]  # a text, and whether names of special tokens in it are those tokens
_FORKS = 8  # continuations that are computed in one pass


@dataclass(frozen=True, slots=True)
class Pair:
    """A context, of one token at least, and a continuation of it that is scored, likewise."""

    context: list[int]
    continuation: list[int]

    def fitted(self, most: int) -> "Pair":
        """With tokens taken off the front of the context until the engine reads at most `most`, as the harness does.

        Raises EdgebitError where the continuation alone is longer.
        """
        surplus = len(self.context) + len(self.continuation) - 1 - most
        if surplus <= 0:
            return self
        if surplus >= len(self.context):
            raise EdgebitError(f"a continuation has {len(self.continuation)} tokens, and the context takes {most}")
        return Pair(self.context[surplus:], self.continuation)

    @property
    def read(self) -> list[int]:
        """What the engine reads for it: all but the last token."""
        return self.context + self.continuation[:-1]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of a continuation after its context."""

    log_prob: float  # natural, the sum over its tokens
    is_greedy: bool  # each of its tokens is the likeliest


class PairEncoder:
    """Tokens of contexts and continuations by the rule of lm-evaluation-harness (TemplateLM, 0.4.13).

    White space at the context's end goes to the continuation; context + continuation is tokenized as one text, and
    what comes after as many tokens as the context alone has is the continuation. begin-of-text goes first where the
    model has it; an empty context is begin-of-text, or else the model's first stop token.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        bos, stops = model.info.bos_token, model.info.stop_tokens
        self.begin = [] if bos is None else [bos]
        self._prefix = bos if bos is not None else next(iter(stops), None)

    def encode(self, context: str, continuation: str) -> Pair:
        """Of plain texts: names of special tokens stay text. EdgebitError where the continuation has no token."""
        return self.encode_segments([(context, False)], continuation, bos=True)

    def encode_segments(self, context: Sequence[Segment], continuation: str, *, bos: bool) -> Pair:
        """Of a context whose marked texts may name special tokens; begin-of-text goes first where `bos` says so."""
        begin = self.begin if bos else []
        kept = _without_end(context)
        ids = begin + self._tokenizer.encode_segments(kept)
        if not ids or not any(text for text, _ in context):
            pair = self._after_prefix("".join(text for text, _ in context) + continuation)
        else:
            whole = begin + self._tokenizer.encode_segments([*context, (continuation, False)])
            pair = Pair(ids, whole[len(ids) :])
        if not pair.continuation:
            raise EdgebitError(f"the continuation {continuation!r} has no token of its own after this context")
        return pair

    def from_prefix(self, text: str) -> list[int]:
        """Tokens of a text after what stands for an empty context. EdgebitError where the model has no such token."""
        if self._prefix is None:
            raise EdgebitError("an empty context needs a begin-of-text or stop token, and this model has neither")
        return [self._prefix, *self._tokenizer.encode(text)]

    def _after_prefix(self, continuation: str) -> Pair:
        ids = self.from_prefix(continuation)
        repeated = ids[1:2] == ids[:1]
        return Pair(ids[:1], ids[2:] if repeated else ids[1:])


def _without_end(segments: Sequence[Segment]) -> list[Segment]:
    """The segments without the white space at the end of their text."""
    kept = list(segments)
    while kept:
        text, special = kept.pop()
        if text.rstrip():
            return [*kept, (text.rstrip(), special)]
    return kept


class LikelihoodEngine:
    """Scores groups of pairs. One thread at a time."""

    def __init__(self, model: Model, *, ctx_len: int, threads: int, kv: str) -> None:
        """An engine for pairs of which `ctx_len` tokens are read at most; EngineError where memory is short."""
        self.engine = Engine(
            model,
            ctx_len=ctx_len,
            sequences=1 + _FORKS,
            threads=threads,
            batch_len=BATCH_LEN,
            logits_rows=BATCH_LEN,
            kv=kv,
        )
        self._trunk: list[int] = []  # tokens of sequence 0: what the pairs scored last have in common

    def close(self) -> None:
        """Give the engine back."""
        self.engine.close()

    def score(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """Of each pair, in order. What all of them begin with is computed once, and kept for the next group."""
        shared = self._grow_trunk(pairs)
        found: list[Likelihood] = []
        for first in range(0, len(pairs), _FORKS):
            found += self._score_forks(pairs[first : first + _FORKS], shared)
        return found

    def _grow_trunk(self, pairs: Sequence[Pair]) -> int:
        """Make sequence 0 hold what all pairs have in common, short of the first token whose logits count."""
        common = pairs[0].read[: min(len(pair.context) for pair in pairs) - 1]
        for pair in pairs[1:]:
            common = common[: shared_length(common, pair.read)]
        kept = shared_length(self._trunk, common)
        self.engine.truncate(0, kept)
        del self._trunk[kept:]
        for first in range(kept, len(common), BATCH_LEN):
            tokens = common[first : first + BATCH_LEN]
            self.engine.eval_batch(tokens, [0] * len(tokens), [False] * len(tokens))
            self._trunk += tokens
        return len(common)

    def _score_forks(self, pairs: Sequence[Pair], shared: int) -> list[Likelihood]:
        """Of at most _FORKS pairs, side by side in the passes of one batch."""
        steps: list[_Step] = []
        for fork, pair in enumerate(pairs):
            self.engine.copy_sequence(0, 1 + fork, shared)
            steps += _steps(fork, pair, shared)
        log_prob, greedy = np.zeros(len(pairs)), np.ones(len(pairs), dtype=bool)
        for first in range(0, len(steps), BATCH_LEN):
            for step, values in self._pass(steps[first : first + BATCH_LEN]):
                log_prob[step.fork] += values[step.target]
                greedy[step.fork] &= int(values.argmax()) == step.target
        return [Likelihood(float(one), bool(all_best)) for one, all_best in zip(log_prob, greedy, strict=True)]

    def _pass(self, steps: "Sequence[_Step]") -> Iterator[tuple["_Step", Floats]]:
        """One pass of the engine; gives the log-probabilities after each step that is to be scored."""
        self.engine.eval_batch(
            [step.token for step in steps],
            [1 + step.fork for step in steps],
            [step.target is not None for step in steps],
        )
        for row, step in enumerate(step for step in steps if step.target is not None):
            yield step, log_probs(self.engine, row, 1, where=row)[0]


@dataclass(frozen=True, slots=True)
class _Step:
    """A token that is read, and the one after it where that is scored."""

    fork: int
    token: int
    target: int | None


def _steps(fork: int, pair: Pair, shared: int) -> list[_Step]:
    read, first = pair.read, len(pair.context) - 1
    return [
        _Step(fork, token, pair.continuation[place - first] if place >= first else None)
        for place, token in enumerate(read)
        if place >= shared
    ]
