"""Prompts in the making that begin alike: what one of them computes, the others wait for and copy."""

from collections.abc import Collection

from edgebit.runtime.generation import Generation
from edgebit.runtime.sequences import SequenceEngine, shared_length

LEAST = 16  # tokens that are waited for: fewer are computed sooner than another prompt's turn comes


class PromptSharing:
    """Which prompt waits for which, among those of one owner and adapter. One thread at a time."""

    def __init__(self, engine: SequenceEngine) -> None:
        self._engine = engine
        self._going: list[Generation] = []
        self._awaited: dict[Generation, tuple[Generation, int]] = {}  # who computes it, and how many tokens

    def enter(self, generation: Generation) -> None:
        """A generation has begun: where one before it is about to compute much of its prompt, it waits for that."""
        longest = len(generation.held.tokens) + LEAST - 1
        for other in self._going:
            if other.held.owner == generation.held.owner and other.held.adapter is generation.held.adapter:
                shared = shared_length(
                    other.prompt, generation.prompt[:-1]
                )  # the last token's logits have to be computed
                if shared > longest:
                    self._awaited[generation], longest = (other, shared), shared
        self._going.append(generation)

    def catch_up(self, stepped: Collection[Generation]) -> list[Generation]:
        """Copy what has been computed meanwhile; gives those of `stepped` that wait for nothing, or no longer."""
        for generation, (other, shared) in list(self._awaited.items()):
            if len(other.held.tokens) >= shared or other.done or other not in stepped:
                self._copy(generation)
        return [each for each in stepped if each not in self._awaited]

    def leave(self, generation: Generation) -> None:
        """A generation ends: before its sequence is another's."""
        self._going.remove(generation)
        self._awaited.pop(generation, None)
        for follower in [each for each, (other, _) in self._awaited.items() if other is generation]:
            self._copy(follower)

    def _copy(self, generation: Generation) -> None:
        other, shared = self._awaited.pop(generation)
        length = min(shared, len(other.held.tokens))
        if length > len(generation.held.tokens):
            self._engine.copy_sequence(other.held.index, generation.held.index, length)
            generation.take_copy(length)
