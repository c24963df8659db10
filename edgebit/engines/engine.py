"""What every engine that answers on this machine can do: the protocol that `run` and `compare` are written to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgebit.bundle.prompt_program import Message
from edgebit.runtime.engine import KV_TYPES
from edgebit.runtime.generation import Answer
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.session import SPECULATE


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenOptions:
    """What an engine is opened with. An engine ignores what only others have: the command line has refused it."""

    threads: int | None = None  # None: one for each big core
    ctx_len: int = 0  # tokens; 0: the model's own maximum
    kv: str = KV_TYPES[0]  # native only, as the next four
    speculate: int = SPECULATE
    prefix_cache: Path | None = None
    adapter: Path | None = None
    schema: str | None = None  # a file with a JSON Schema, "json" for any object, "model" for the model's own
    ort_library: str | None = None  # onnx only: a library of operators instead of the folder's own, or "none"


class TextEngine(Protocol):
    """One model, loaded, that answers prompts. One thread at a time. close() gives everything back."""

    @property
    def name(self) -> str:
        """As --engine has it: "native", "onnx", "transformers"."""

    @property
    def description(self) -> str:
        """For people, on one line: what runs, its version, its kernels, how many threads."""

    @property
    def load_s(self) -> float:
        """Seconds from the call of open_engine() to its end, imports of Python packages among them."""

    @property
    def context_len(self) -> int:
        """Tokens that a prompt and its answer may have together."""

    @property
    def has_chat_template(self) -> bool:
        """Whether chat_ids() can be called."""

    @property
    def notes(self) -> Sequence[str]:
        """What its user should know, a sentence each: that a fallback runs, and which. Empty where all is well."""

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a plain prompt, begin-of-text first; special tokens in it stay text."""

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation in the model's own template, ready for the answer.

        Raises EngineError where the model has no template or does not allow the order of roles.
        """

    def sampling(self, asked: Mapping[str, float | None], *, seed: int) -> SamplingParams:
        """Fields of SamplingParams as asked for; what is not (or None), as the model's makers advise, else greedy."""

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
        """Yield the answer to `ids` piece by piece, as whole characters, and fill in `answer`, times and all.

        It ends at a stop token or string ("stop"), after max_tokens or at the context's end ("length"), or when
        `cancelled` says so between two tokens ("cancelled"). Raises ContextFullError where the prompt does not fit.
        """

    def figures(self) -> dict[str, Any]:
        """Its own part of the statistics, by name: threads, memory in MiB, kernels; of the last answer where of one."""

    def keep(self) -> None:
        """After an answer: keep what was computed for it where the options asked for that."""

    def close(self) -> None:
        """Give model and memory back."""
