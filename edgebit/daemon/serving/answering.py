"""What serving needs of a model: answers in the making that are stepped together. engine.LoadedModel has it."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from edgebit.daemon.contract.messages import GenerateRequest
from edgebit.errors import EdgebitError
from edgebit.runtime.generation import Answer


class Generating(Protocol):
    """One answer in the making: runtime's Generation is one."""

    answer: Answer
    done: bool
    error: EdgebitError | None  # that ended this answer alone

    @property
    def prompt_left(self) -> int:
        """Tokens of the prompt that are not computed yet; 0: it decodes."""

    def cancel(self) -> str:
        """End it here; gives the text that was held back."""


G = TypeVar("G", bound=Generating)


class AnsweringEngine(Protocol[G]):
    """One thread at a time, but for fitting(), request_ids(), answer_key() and cancel()."""

    @property
    def sequences(self) -> int:
        """How many answers can be in the making at once."""

    @property
    def ctx_len(self) -> int:
        """Tokens of prompt and answer together."""

    def fitting(self, request: GenerateRequest) -> GenerateRequest:
        """The request with the adapter of the name it has, if any, looked up. Raises Refusal for what is not there."""

    def request_ids(self, request: GenerateRequest) -> list[int]:
        """Token ids of the prompt. Raises EngineError where the model's template does not allow the messages."""

    def answer_key(self, request: GenerateRequest, ids: Sequence[int]) -> bytes | None:
        """All that determines the answer, the same for the same; None where chance has a part in it."""

    def begin(self, request: GenerateRequest, ids: Sequence[int], answer: Answer, owner: str) -> G:
        """Begin an answer. Raises EngineError; ContextFullError where the prompt does not fit; Refusal."""

    def step(self, generations: Sequence[G], prompt_most: int | None) -> list[tuple[G, list[str]]]:
        """One pass for all that are not done; the text of each token drawn. Raises Cancelled, or EngineError."""

    def end(self, generation: G) -> None:
        """Give back what the answer had, done or not."""

    def forget(self, generation: G) -> None:
        """The same, and nothing that was computed for it is used again."""

    def warm_up(self) -> tuple[GenerateRequest, list[int]]:
        """A short request that touches what all requests need."""

    def keep(self) -> None:
        """Keep what ended answers came to, for prompts that begin alike. It may take a moment."""

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads from now on; 0: with all it was opened with."""

    def cancel(self) -> None:
        """End the pass in progress, or the next. From any thread."""

    def cancel_reset(self) -> None:
        """Take back a cancel() that came too late."""
