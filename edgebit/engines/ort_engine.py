"""ONNX Runtime behind the protocol of all engines: an exported folder, with our tokenizer and our sampler.

So a prompt is the same tokens as in the native engine, and the same logits and seed give the same answer.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebit.bundle.prompt_program import Message
from edgebit.engines.engine import OpenOptions
from edgebit.errors import BundleError, OnnxError
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.folder import TOKENIZER_NAME, OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
from edgebit.runtime.cores import default_threads
from edgebit.runtime.generation import Answer, Generation, answer_limit
from edgebit.runtime.library import Library
from edgebit.runtime.prompt_ids import chat_ids, prompt_ids
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.sampling import advised_sampling, choose_sampling
from edgebit.runtime.sequences import HeldSequence, shared_length
from edgebit.runtime.tokenizer import Tokenizer


class OrtEngine:
    """One decoder on one session. What it holds of an answer is kept for a prompt that begins alike."""

    name = "onnx"

    def __init__(self, session: OnnxSession, decoder: Decoder, tokenizer: Tokenizer, started: float) -> None:
        """All three are its own from here on; `started`: when it began to be opened, by time.monotonic()."""
        folder = session.folder
        self.session = session
        self.decoder = decoder
        self._tokenizer = tokenizer
        self._program = folder.prompt_program()
        self._advice = advised_sampling(folder.conf.generation)
        self._held = HeldSequence(0)
        self.load_s = time.monotonic() - started

    @property
    def description(self) -> str:
        """Version, whose kernels run, threads."""
        session = self.session
        kernels = {
            "bound": "fast kernel",
            "fallback": f"fallback {session.binding.fallback!r}",
            "none": "own operators",
        }
        return f"ONNX Runtime {session.version}, {kernels[session.binding.state]}, {session.threads} threads"

    @property
    def context_len(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.decoder.ctx_len

    @property
    def has_chat_template(self) -> bool:
        """Whether the folder has a prompt program."""
        return self._program is not None

    @property
    def notes(self) -> Sequence[str]:
        """That the fallback runs, and which, where it does."""
        note = self.session.binding.note
        return () if note is None else (note,)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a plain prompt, begin-of-text first."""
        return prompt_ids(self._tokenizer, self.session.folder.conf.bos_token, prompt)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation in the model's own template."""
        folder = self.session.folder
        return chat_ids(self._tokenizer, self._program, folder.conf.bos_token, messages, source=str(folder.path))

    def sampling(self, asked: Mapping[str, float | None], *, seed: int) -> SamplingParams:
        """As asked for, then as the model's makers advise, then greedy."""
        return choose_sampling(asked, self._advice, seed=seed)

    def generate(
        self,
        ids: Sequence[int],
        answer: Answer,
        *,
        sampling: SamplingParams,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[str]:
        """Yield the answer to `ids` piece by piece, and fill in `answer`."""
        limit = answer_limit(ids, self.decoder.ctx_len, max_tokens)
        started_ns = time.monotonic_ns()
        self._return_to(shared_length(self._held.tokens, ids[:-1]))
        generation = Generation(
            self.session.folder.conf,
            self._tokenizer,
            self._held,
            ids,
            answer,
            sampling=sampling,
            limit=limit,
            stop=stop,
            started_ns=started_ns,
        )
        try:
            while not generation.done:
                for piece in [generation.cancel()] if cancelled() else self._step(generation):
                    if piece:
                        yield piece
            if generation.error is not None:
                raise generation.error
        finally:
            generation.close()

    def figures(self) -> dict[str, Any]:
        """Whose kernels run, by what library and runtime; memory in MiB; threads."""
        binding = self.session.binding
        return {
            "kernel": binding.state,
            "fallback": binding.fallback if binding.state == "fallback" else None,
            "library": str(binding.library) if binding.library is not None else None,
            "onnxruntime": self.session.version,
            "weights_mib": round(self.session.folder.weight_bytes / 2**20, 1),
            "kv_cache_mib": round(self.decoder.held_bytes / 2**20, 1),
            "threads": self.session.threads,
        }

    def keep(self) -> None:
        """Nothing outlives it."""

    def close(self) -> None:
        """Give the tokenizer back; ONNX Runtime's memory goes with the object."""
        self._tokenizer.close()

    def _return_to(self, shared: int) -> None:
        """Keep so many tokens of what the decoder holds."""
        self.decoder.truncate(shared)
        del self._held.tokens[self.decoder.length :]

    def _step(self, generation: Generation) -> list[str]:
        """One run: a part of the prompt, or the token drawn last; gives the text of what is drawn then."""
        left = generation.prompt_left
        tokens = generation.prompt_part(self.decoder.prompt_len) if left else generation.next_tokens(None)
        logits = self.decoder.append(tokens)
        if left > len(tokens):
            generation.take_prompt(tokens)
            return []
        return generation.take_logits(tokens, [memoryview(logits[0])])


def open_engine(path: Path, options: OpenOptions) -> OrtEngine:
    """The exported folder at `path`. Raises OnnxError where it, ONNX Runtime or the library cannot be used."""
    started = time.monotonic()
    folder = OnnxFolder.open(path)
    section = folder.tokenizer_section()
    session = OnnxSession.open(folder, threads=options.threads or default_threads(), library=options.ort_library)
    decoder = Decoder(session, ctx_len=options.ctx_len)
    try:
        tokenizer = Tokenizer.from_section(Library.load(), section)
    except BundleError as error:
        raise OnnxError(f"{folder.path / TOKENIZER_NAME}: {error}. Export the model again") from error
    return OrtEngine(session, decoder, tokenizer, started)
