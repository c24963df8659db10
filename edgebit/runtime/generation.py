"""One answer in the making: which tokens its next pass computes, and what is made of their logits."""

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgebit.errors import EdgebitError, EngineError
from edgebit.runtime.abi import TokenSet
from edgebit.runtime.constraint import Completeness, Constraint
from edgebit.runtime.drafting import Drafting
from edgebit.runtime.eval_errors import ContextFullError
from edgebit.runtime.sampler import Sampler, SamplingParams
from edgebit.runtime.sequences import HeldSequence
from edgebit.runtime.text_stream import TextStream
from edgebit.runtime.tokenizer import Tokenizer

DoneReason = Literal["stop", "length", "cancelled"]


@dataclass(slots=True)
class Answer:
    """What a generation has come to; complete once it is done. Times in nanoseconds."""

    prompt_tokens: int
    reused_tokens: int = 0  # of the prompt, computed before: in a KV cache still, or in the prefix cache
    tokens: list[int] = field(default_factory=list)  # without the stop token that ended it
    text: str = ""
    done_reason: DoneReason = "length"
    prompt_ns: int = 0  # prefill: from the beginning to the first logits
    decode_ns: int = 0  # all that came after
    drafted_tokens: int = 0  # tried ahead of their turn,
    accepted_tokens: int = 0  # and of these, those that came true


def answer_limit(ids: Sequence[int], ctx_len: int, max_tokens: int | None) -> int:
    """How many tokens an answer to the prompt `ids` may have.

    Raises EngineError where the prompt is empty, ContextFullError where it leaves no room in a context of ctx_len.
    """
    if not ids:
        raise EngineError("the prompt is empty: there is nothing to answer")
    limit = ctx_len - len(ids)
    if limit < 1:
        raise ContextFullError(
            f"the prompt has {len(ids)} tokens and the context {ctx_len}: "
            "shorten it, or open the model with a longer context"
        )
    return limit if max_tokens is None else min(limit, max_tokens)


class Vocabulary(Protocol):
    """What tokens are drawn from: model.ModelInfo is one."""

    @property
    def vocab_size(self) -> int:
        """How many logits there are."""

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Those that end an answer."""


class Generation:
    """The answer to one prompt, made pass by pass (batch.step). One thread at a time; end() gives its objects back.

    A pass computes tokens of the prompt that are not there yet or, later, the token drawn last and perhaps a draft of
    those that may follow. Each token is drawn from the logits that it would be drawn from alone and without a draft.
    One that is not the draft's ends it: the rest of the draft leaves the KV cache, and the sampler has never seen it.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        held: HeldSequence,
        ids: Sequence[int],
        answer: Answer,
        *,
        sampling: SamplingParams,
        limit: int,
        stop: Sequence[str],
        started_ns: int,
        constraint: Constraint | None = None,
    ) -> None:
        """`held` is taken for it and holds a beginning of `ids`; at most `limit` tokens are drawn.

        constraint: what the answer is held to, at its beginning; it stays the caller's
        """
        self.held = held
        self.answer = answer
        self.done = False
        self.error: EdgebitError | None = None  # that ended this answer alone
        self._stop_tokens = vocabulary.stop_tokens
        self.prompt = ids
        self.constraint = constraint
        self._limit = limit
        self._drawn = 0
        self._started_ns = started_ns
        self._seen = array("i", ids)  # the prompt and all that was drawn: what drafts are looked up in
        self._sampler = Sampler(tokenizer.library, vocabulary.vocab_size, sampling)
        try:
            self._text = TextStream(tokenizer, stop)
        except BaseException:
            self._sampler.close()
            raise
        for token in ids:
            self._sampler.accept(token)
        answer.reused_tokens = len(held.tokens)

    @property
    def prompt_left(self) -> int:
        """Tokens of the prompt that are not computed yet; 0: it decodes."""
        return max(len(self.prompt) - len(self.held.tokens), 0)

    def prompt_part(self, most: int) -> Sequence[int]:
        """The next tokens of the prompt, at most so many."""
        begin = len(self.held.tokens)
        return self.prompt[begin : begin + most]

    def next_tokens(self, drafting: Drafting | None) -> list[int]:
        """The token drawn last and, where that is likely to pay, a draft of those after it."""
        return [self._seen[-1], *(self._draft(drafting) if drafting is not None else [])]

    def reach(self, rows: int) -> int:
        """How many of the highest logits are looked at in a pass that wants `rows` rows of them; 0: all."""
        return self._sampler.reach(ahead=max(rows - 1, 0))

    def allowed(self, tokens: Sequence[int], rows: int) -> "Sequence[TokenSet | None]":
        """Which tokens may follow each of the last `rows` of those that a pass computes for it; None: any."""
        if self.constraint is None:
            return [None] * rows
        return self.constraint.sets(tokens[len(tokens) - rows + 1 :]) if rows else []

    def take_copy(self, length: int) -> None:
        """Note that its sequence has that much of the prompt, from another one."""
        self.answer.reused_tokens += length - len(self.held.tokens)
        self.held.tokens[:] = self.prompt[:length]

    def take_prompt(self, part: Sequence[int]) -> None:
        """Note that a pass has computed a part of the prompt that is not its end."""
        self.held.tokens += part

    def take_logits(self, tokens: Sequence[int], rows: "Sequence[memoryview[float]]") -> list[str]:
        """Draw from what a pass has computed for `tokens`, the end of the prompt or next_tokens().

        Gives the text that each token drawn adds, whole characters only. rows: the logits, [vocab_size], of all tokens
        that decode, or of the prompt's last. A fault stands in `error` afterwards, and the answer is done.
        """
        if self.prompt_left:
            self.held.tokens += tokens
            self.answer.prompt_ns = time.monotonic_ns() - self._started_ns
            draft: Sequence[int] = ()
        else:
            self.held.tokens.append(tokens[0])
            draft = tokens[1:]
        pieces: list[str] = []
        try:
            accepted = self._draw(draft, rows, pieces)
        except EdgebitError as error:
            self.error, accepted = error, 0
            self._end()
        self.held.tokens += draft[:accepted]
        self.answer.drafted_tokens += len(draft)
        self.answer.accepted_tokens += accepted
        return pieces

    def cancel(self) -> str:
        """End it here; gives the text that was held back."""
        self.answer.done_reason = "cancelled"
        rest = self._text.finish()
        self.answer.text += rest
        self._end()
        return rest

    def close(self) -> None:
        """Give sampler and text stream back."""
        self._sampler.close()
        self._text.close()

    def _draft(self, drafting: Drafting) -> list[int]:
        most = self._limit - self._drawn - 1
        if self.constraint is None:
            return drafting.draft(self._seen, most)
        forced = self.constraint.forced_tokens()
        draft = drafting.draft_forced(forced, most) if forced else drafting.draft(self._seen, most)
        return draft[: self.constraint.allowed(draft)] if draft else []

    def _draw(self, draft: Sequence[int], rows: "Sequence[memoryview[float]]", pieces: list[str]) -> int:
        """Draw a token a row, until one is not the draft's or the answer ends; gives how many of it came true."""
        accepted = 0
        while True:
            token = self._draw_one(rows[accepted])
            self._drawn += 1
            self._seen.append(token)
            came_true = accepted < len(draft) and token == draft[accepted]
            accepted += came_true
            pieces.append(self._show(token))
            if self.done or not came_true:
                return accepted

    def _draw_one(self, row: "memoryview[float]") -> int:
        if self.constraint is None:
            return self._sampler.sample(row)
        self.constraint.mask(row)
        token = self._sampler.sample(row)
        self.constraint.accept(token)
        return token

    def _show(self, token: int) -> str:
        """The text that a drawn token adds; it may be the last."""
        piece, stopped = "", token in self._stop_tokens
        if not stopped:
            self.answer.tokens.append(token)
            piece, stopped = self._text.push(token)
            stopped = stopped or self._is_complete()
        if stopped or self._drawn == self._limit:
            self.answer.done_reason = "stop" if stopped else "length"
            piece += self._text.finish()
            self._end()
        self.answer.text += piece
        return piece

    def _is_complete(self) -> bool:
        """Whether the answer is what it is held to, and cannot go on: the stop token need not be drawn."""
        return self.constraint is not None and self.constraint.completeness() is Completeness.COMPLETE

    def _end(self) -> None:
        self.done = True
        self.answer.decode_ns = time.monotonic_ns() - self._started_ns - self.answer.prompt_ns
