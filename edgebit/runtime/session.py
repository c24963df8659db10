"""From prompts to answers: prompt tokens, and the answers in the making over one engine, one or several at a time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from edgebit.bundle.prompt_program import Message, PromptProgram
from edgebit.errors import EngineError
from edgebit.runtime import batch
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.constraint import ConstraintPool
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.drafting import Drafting
from edgebit.runtime.engine import KV_TYPES, Engine
from edgebit.runtime.eval_errors import Cancelled
from edgebit.runtime.generation import Answer, Generation, answer_limit
from edgebit.runtime.model import Model
from edgebit.runtime.prefix_cache import PrefixCache, StatefulEngine
from edgebit.runtime.prompt_ids import chat_ids, prompt_ids
from edgebit.runtime.prompt_sharing import PromptSharing
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.sampling import advised_sampling, choose_sampling
from edgebit.runtime.sequences import Prefixes, SequencePool
from edgebit.runtime.token_engine import EngineOpener
from edgebit.runtime.tokenizer import Tokenizer

SPECULATE = 4  # tokens: the longest draft, unless asked otherwise; how long one is, is decided by what pays


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
        open_engine: EngineOpener = Engine,
    ) -> None:
        """Prepare an engine for `model`, which must stay open; ctx_len 0 takes the model's own maximum.

        sequences: answers that can be in the making at once, each with a KV cache of ctx_len tokens
        speculate: tokens that may be drafted from the text and verified in one pass; 0: none. Changes no answer.
        prefix_cache: where beginnings of prompts are looked for, and where keep() puts them. Changes no answer.
        batch_len: tokens of a prefill pass; 0: 128
        open_engine: gives the engine that computes, by default our own
        Raises EngineError where memory is short, or the engine does not do what is asked for.
        """
        section = model.section("PRMT")
        self.model = model
        self._advice = advised_sampling(model.meta().get("generation"))
        self.tokenizer = Tokenizer.from_model(model)
        self.program = PromptProgram.from_bytes(section) if section is not None else None
        self._pass_len = batch_len or BATCH_LEN
        self.engine = open_engine(
            model,
            ctx_len=ctx_len,
            threads=threads,
            sequences=sequences,
            kv=kv,
            batch_len=self._pass_len,
            logits_rows=max(sequences, 1 + speculate),
        )
        self._drafting = Drafting(model.library, speculate)
        self.pool = SequencePool(self.engine, sequences, self._prefixes(prefix_cache))
        self._sharing = PromptSharing(self.engine)
        self._constraints = ConstraintPool(model, self.tokenizer)

    def close(self) -> None:
        """Give engine and tokenizer back; the model is the caller's."""
        self.engine.close()
        self._constraints.close()
        self.tokenizer.close()

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a plain prompt, begin-of-text first; special tokens in it stay text."""
        return prompt_ids(self.tokenizer, self.model.info.bos_token, prompt)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation in the model's own template, ready for the assistant's answer.

        Raises EngineError where the model has no template or does not allow the order of roles.
        """
        return chat_ids(self.tokenizer, self.program, self.model.info.bos_token, messages, source=self.model.source)

    def sampling(self, asked: Mapping[str, float | None], *, seed: int) -> SamplingParams:
        """Fields of SamplingParams as asked for; what is not (or None), as the model's makers advise, else greedy."""
        return choose_sampling(asked, self._advice, seed=seed)

    def begin(
        self,
        ids: Sequence[int],
        answer: Answer,
        *,
        sampling: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        owner: str = "",
        adapter: Adapter | None = None,
        constraint: bytes | None = None,
    ) -> Generation:
        """An answer to the prompt `ids`, filled in by step() until it is done; end() must follow in any case.

        It ends at one of the model's stop tokens or a stop string ("stop"), after max_tokens or at the context's end
        ("length"). Tokens that were computed for the same owner and adapter before are not computed again. Raises
        ContextFullError where the prompt alone does not fit, EngineError where all sequences are taken, or where the
        engine cannot have the adapter, which must be one of the session's model.

        constraint: a program of json_schema.compile_schema(): the answer follows the schema, unless it is cut
        ("length"), and "stop" is when it is complete. Raises EngineError where the vocabulary cannot spell one.
        """
        limit = answer_limit(ids, self.engine.ctx_len, max_tokens)
        started_ns = time.monotonic_ns()
        held = self.pool.take(ids, owner, adapter)
        held_to = None
        try:
            held_to = self._constraints.take(constraint) if constraint is not None else None
            generation = Generation(
                self.model.info,
                self.tokenizer,
                held,
                ids,
                answer,
                sampling=sampling or SamplingParams(),
                limit=limit,
                stop=stop,
                started_ns=started_ns,
                constraint=held_to,
            )
        except BaseException:
            self.pool.give_back(held)
            if held_to is not None:
                self._constraints.give_back(held_to)
            raise
        self._sharing.enter(generation)
        return generation

    def step(
        self, generations: Sequence[Generation], *, prompt_most: int | None = None
    ) -> list[tuple[Generation, list[str]]]:
        """One pass for all of them that are not done; gives the text of each token that was drawn, by generation.

        Prompts of one owner that begin alike are computed once: the others wait for what the first one computes.

        prompt_most: tokens of prompts that a pass may compute while other answers wait for their next token
        Raises Cancelled after cancel(), or EngineError: all generations are then as before.
        """
        going = self._sharing.catch_up(generations)
        shares = batch.plan(going, batch_len=self._pass_len, prompt_most=prompt_most, drafting=self._drafting)
        if not shares:
            return []
        return batch.hand_out(self.engine, shares, batch.compute(self.engine, shares), self._drafting)

    def end(self, generation: Generation) -> None:
        """Give an answer's sequence and objects back, done or not; its tokens stay for prompts that begin alike."""
        self._sharing.leave(generation)
        self._close(generation)
        self.pool.give_back(generation.held)

    def forget(self, generation: Generation) -> None:
        """The same, and nothing that was computed for it is used again."""
        self._close(generation)
        self.pool.forget(generation.held)
        self._sharing.leave(generation)

    def generate(
        self,
        ids: Sequence[int],
        answer: Answer,
        *,
        sampling: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        adapter: Adapter | None = None,
        constraint: bytes | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[str]:
        """Yield one answer piece by piece, as whole characters, and fill in `answer`: begin(), step() and end().

        It also ends when `cancelled` says so between two passes, or cancel() within one ("cancelled").
        """
        generation = self.begin(
            ids, answer, sampling=sampling, max_tokens=max_tokens, stop=stop, adapter=adapter, constraint=constraint
        )
        try:
            while not generation.done:
                for piece in self._step_alone(generation, cancelled):
                    if piece:
                        yield piece
            if generation.error is not None:
                raise generation.error
        finally:
            self.end(generation)

    def drop_adapter(self, adapter: Adapter) -> None:
        """Forget what was computed with it, so that it can be closed. Raises EngineError while an answer needs it."""
        self.pool.drop_adapter(adapter)

    def keep(self) -> None:
        """Put what ended answers and their prompts came to into the prefix cache, if there is one.

        For once the answer is out: this takes its time, and nobody should wait for it.
        """
        self.pool.keep()

    def cancel(self) -> None:
        """End the pass in progress, in the middle of a long prefill too, or the next one. From any thread."""
        self.engine.cancel()

    def _close(self, generation: Generation) -> None:
        generation.close()
        if generation.constraint is not None:
            self._constraints.give_back(generation.constraint)
            generation.constraint = None

    def _prefixes(self, cache: PrefixCache | None) -> Prefixes | None:
        if cache is None:
            return None
        if not isinstance(self.engine, StatefulEngine):
            raise EngineError("this engine does not give its states out: there is no prefix cache with it")
        return Prefixes(cache, self.engine)

    def _step_alone(self, generation: Generation, cancelled: Callable[[], bool]) -> list[str]:
        if not cancelled():
            try:
                return [piece for _, pieces in self.step([generation]) for piece in pieces]
            except Cancelled:
                pass
        return [generation.cancel()]
