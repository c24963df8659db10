"""From a prompt to an answer: prompt tokens, prefill, decode, sampling, stopping, text."""

import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgebit.bundle.prompt_program import Message, PromptProgram
from edgebit.errors import EngineError
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.native import (
    KV_TYPES,
    Cancelled,
    ContextFullError,
    Drafting,
    Engine,
    Model,
    Sampler,
    SamplingParams,
    TextStream,
    Tokenizer,
)
from edgebit.runtime.prefix_cache import PrefixCache

# What a model's makers may advise, of SamplingParams: as what kind of number the sampler takes it, from what to what.
_ADVICE: dict[str, tuple[type[float] | type[int], float, float]] = {
    "temperature": (float, 0, 10),
    "top_k": (int, 0, 1 << 20),
    "top_p": (float, 0, 1),
    "min_p": (float, 0, 1),
    "repetition_penalty": (float, 0.01, 100),
}

SPECULATE = 4  # tokens: the longest draft, unless asked otherwise; how long one is, is decided by what pays

DoneReason = Literal["stop", "length", "cancelled"]


@dataclass(slots=True)
class Answer:
    """What a generation came to; complete once its iterator has ended. Times in nanoseconds."""

    prompt_tokens: int
    reused_tokens: int = 0  # of the prompt, computed before: in the KV cache still, or in the prefix cache
    tokens: list[int] = field(default_factory=list)  # without the stop token that ended it
    text: str = ""
    done_reason: DoneReason = "length"
    prompt_ns: int = 0  # prefill: from the call to the first logits
    decode_ns: int = 0  # all that came after
    drafted_tokens: int = 0  # tried ahead of their turn,
    accepted_tokens: int = 0  # and of these, those that came true


class Session:
    """One model with its tokenizer, prompt program and engine. One thread at a time, but for cancel()."""

    def __init__(
        self,
        model: Model,
        *,
        ctx_len: int = 0,
        threads: int = 1,
        sequences: int = 1,
        kv: str = KV_TYPES[0],
        speculate: int = SPECULATE,
        prefix_cache: PrefixCache | None = None,
        batch_len: int = 0,
    ) -> None:
        """Prepare an engine for `model`, which must stay open; ctx_len 0 takes the model's own maximum.

        speculate: tokens that may be drafted from the text and verified in one pass; 0: none. Changes no answer.
        prefix_cache: where beginnings of prompts are looked for, and where keep() puts them. Changes no answer.
        batch_len: tokens of a prefill pass; 0: 128
        Raises EngineError where memory is short.
        """
        section = model.section("PRMT")
        self.model = model
        self._advice = _advice(model.meta())
        self.tokenizer = Tokenizer.from_model(model)
        self.program = PromptProgram.from_bytes(section) if section is not None else None
        self._pass_len = batch_len or BATCH_LEN
        self.engine = Engine(
            model,
            ctx_len=ctx_len,
            threads=threads,
            sequences=sequences,
            kv=kv,
            batch_len=self._pass_len,
            logits_rows=max(sequences, 1 + speculate),
        )
        self._drafting = Drafting(model.library, speculate)
        self._prefixes = prefix_cache
        self._cached: list[list[int]] = [[] for _ in range(sequences)]  # the tokens in each sequence's KV cache

    def close(self) -> None:
        """Give engine and tokenizer back; the model is the caller's."""
        self.engine.close()
        self.tokenizer.close()

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a plain prompt, begin-of-text first; special tokens in it stay text."""
        return self._begin() + self.tokenizer.encode(prompt)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation in the model's own template, ready for the assistant's answer.

        Raises EngineError where the model has no template or does not allow the order of roles.
        """
        if self.program is None:
            raise EngineError(f"{self.model.source} has no chat template: it is a base model. Give it a plain prompt.")
        begin = self._begin() if self.program.add_bos else []
        return begin + self.tokenizer.encode_segments(self.program.render(messages))

    def sampling(self, asked: Mapping[str, float | None], *, seed: int) -> SamplingParams:
        """Fields of SamplingParams as asked for; what is not (or None), as the model's makers advise, else greedy."""
        values: dict[str, Any] = {
            **self._advice,
            **{name: value for name, value in asked.items() if value is not None},
        }
        return SamplingParams(**values, seed=seed)

    def generate(
        self,
        ids: Sequence[int],
        answer: Answer,
        *,
        sampling: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        sequence: int = 0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[str]:
        """Yield the answer to the prompt `ids` piece by piece, as whole characters, and fill in `answer`.

        It ends at one of the model's stop tokens or a stop string ("stop"), after max_tokens or at the context's
        end ("length"), or when `cancelled` says so between two tokens, or cancel() within one ("cancelled").
        Tokens that the sequence holds from the call before are not computed again. Raises ContextFullError where
        the prompt alone does not fit.
        """
        if not ids:
            raise EngineError("the prompt is empty: there is nothing to answer")
        limit = self.engine.ctx_len - len(ids)
        if limit < 1:
            raise ContextFullError(
                f"the prompt has {len(ids)} tokens and the context {self.engine.ctx_len}: "
                "shorten it, or open the model with a longer context"
            )
        limit = limit if max_tokens is None else min(limit, max_tokens)
        info = self.model.info
        with (
            Sampler(self.model.library, info.vocab_size, sampling or SamplingParams()) as sampler,
            TextStream(self.tokenizer, stop) as text,
        ):
            for piece in self._pieces(ids, answer, limit, sequence, sampler, text, cancelled):
                if piece:
                    answer.text += piece
                    yield piece

    def keep(self, sequence: int = 0) -> None:
        """Put what the last prompt and answer came to into the prefix cache, if there is one.

        For once the answer is out: this takes its time, and nobody should wait for it.
        """
        if self._prefixes is not None:
            self._prefixes.store(self.engine, sequence, self._cached[sequence])

    def cancel(self) -> None:
        """End a generation, in the middle of a long prefill too. From any thread."""
        self.engine.cancel()

    def _pieces(
        self,
        ids: Sequence[int],
        answer: Answer,
        limit: int,
        sequence: int,
        sampler: Sampler,
        text: TextStream,
        cancelled: Callable[[], bool],
    ) -> Iterator[str]:
        started = time.monotonic_ns()
        try:
            for token in ids:
                sampler.accept(token)
            answer.reused_tokens = self._prefill(ids, sequence, sampler.reach(), cancelled)
            answer.prompt_ns = time.monotonic_ns() - started
            for token in self._tokens(ids, answer, limit, sequence, sampler, cancelled):
                if token in self.model.info.stop_tokens:
                    answer.done_reason = "stop"
                    break
                answer.tokens.append(token)
                piece, stopped = text.push(token)
                yield piece
                if stopped:
                    answer.done_reason = "stop"
                    break
        except Cancelled:
            answer.done_reason = "cancelled"
        yield text.finish()
        answer.decode_ns = time.monotonic_ns() - started - answer.prompt_ns
        self.engine.truncate(sequence, len(self._cached[sequence]))  # of what was left of a draft

    def _tokens(
        self,
        ids: Sequence[int],
        answer: Answer,
        limit: int,
        sequence: int,
        sampler: Sampler,
        cancelled: Callable[[], bool],
    ) -> Iterator[int]:
        """Draw `limit` tokens from the logits of the prompt on, to the caller's stop. Raises Cancelled.

        A pass computes the last token and, where that is likely to pay, a draft of those that may follow. Each token is
        drawn from the logits it would be drawn from without a draft. One that is not the draft's ends it: the rest of
        the draft leaves the KV cache, and the sampler has never seen it.
        """
        text, cached = array("i", ids), self._cached[sequence]
        draft: list[int] = []
        row = pass_ns = 0  # of the logits, and so many tokens of the draft have come true; how long the pass took
        for drawn in range(1, limit + 1):
            if cancelled():
                raise Cancelled
            token = sampler.sample(self.engine.logits(row))
            yield token
            text.append(token)
            if row < len(draft) and token == draft[row]:
                row += 1
                cached.append(token)
                continue
            if pass_ns:
                self._drafting.record(row, pass_ns)
                answer.drafted_tokens += len(draft)
                answer.accepted_tokens += row
            if drawn == limit:
                break  # the last token's logits are nobody's
            self.engine.truncate(sequence, len(cached))
            draft = self._drafting.draft(text, limit - drawn - 1)
            row, pass_ns = 0, self._pass([token, *draft], sequence, sampler)
            cached.append(token)

    def _pass(self, tokens: Sequence[int], sequence: int, sampler: Sampler) -> int:
        """Compute the logits of all `tokens`; gives how long it took, in nanoseconds."""
        started = time.monotonic_ns()
        count = len(tokens)
        self.engine.eval_batch(tokens, [sequence] * count, [True] * count, n_best=sampler.reach(ahead=count - 1))
        return time.monotonic_ns() - started

    def _prefill(self, ids: Sequence[int], sequence: int, n_best: int, cancelled: Callable[[], bool]) -> int:
        """Bring the sequence to hold `ids`; returns how many of them were computed before. Raises Cancelled.

        One pass of the engine at a time, so that Python can look at signals and `cancelled` in between. The head is
        computed in the last one only.
        """
        cached = self._cached[sequence]
        shared = 0
        while shared < min(len(cached), len(ids) - 1) and cached[shared] == ids[shared]:
            shared += 1
        self.engine.truncate(sequence, shared)
        del cached[shared:]
        if self._prefixes is not None:
            shared = self._prefixes.restore(self.engine, sequence, ids[:-1])
        cached[:] = ids[:shared]
        for start in range(shared, len(ids), self._pass_len):
            if cancelled():
                raise Cancelled
            tokens = ids[start : start + self._pass_len]
            wanted = [False] * len(tokens)
            wanted[-1] = start + len(tokens) == len(ids)
            self.engine.eval_batch(tokens, [sequence] * len(tokens), wanted, n_best=n_best)
            cached += tokens
        return shared

    def _begin(self) -> list[int]:
        bos = self.model.info.bos_token
        return [bos] if bos is not None else []


def _advice(meta: Mapping[str, Any]) -> dict[str, float]:
    """What the model's makers advise for sampling, as far as META has numbers for it that the sampler takes."""
    given = meta.get("generation")
    if not isinstance(given, dict):
        return {}
    return {
        name: kind(value)
        for name, (kind, least, most) in _ADVICE.items()
        if isinstance(value := given.get(name), int | float) and not isinstance(value, bool) and least <= value <= most
    }
