"""The engine's sequences: which one a prompt gets, and what of it is in a KV cache already."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgebit.errors import EngineError
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.prefix_cache import PrefixCache, StatefulEngine


class SequenceEngine(Protocol):
    """What the pool needs of an engine: engine.Engine has it."""

    def truncate(self, sequence: int = 0, length: int = 0) -> None:
        """Forget the tokens from position `length` on."""

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Make `target` begin with the first `length` tokens of `source`, and hold no others; it gets its adapter."""

    def set_adapter(self, sequence: int, adapter: Adapter | None) -> None:
        """What the tokens of an empty sequence go through. Raises EngineError where it cannot have that one."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """A prefix cache and the engine whose states it keeps."""

    cache: PrefixCache
    engine: StatefulEngine

    def restore(self, sequence: int, tokens: Sequence[int], owner: str) -> int:
        """Make the sequence hold as much of the beginning of `tokens` as is known; gives how much that is."""
        return self.cache.restore(self.engine, sequence, tokens, owner)

    def store(self, sequence: int, tokens: Sequence[int], owner: str) -> None:
        """Keep what the engine has computed for `tokens`."""
        self.cache.store(self.engine, sequence, tokens, owner)


@dataclass(eq=False, slots=True)
class HeldSequence:
    """A sequence of the engine and the tokens in its KV cache."""

    index: int
    tokens: list[int] = field(default_factory=list)
    owner: str = ""  # for whom they were computed
    adapter: Adapter | None = None  # and with what
    taken: bool = False  # by an answer in the making
    kept: bool = True  # whether the prefix cache knows the tokens
    touched: int = 0  # tokens of its KV cache that memory was taken for
    used: int = 0  # when it was given back, on the pool's own clock


class SequencePool:
    """Sequences that are free keep their tokens, for prompts that begin alike; the one used longest ago goes first.

    What was computed for one owner, or with one adapter, is never used for another. One thread at a time.
    """

    def __init__(self, engine: SequenceEngine, count: int, prefixes: Prefixes | None) -> None:
        self._engine = engine
        self._prefixes = prefixes
        self._sequences = [HeldSequence(index) for index in range(count)]
        self._clock = 0

    def __getitem__(self, index: int) -> HeldSequence:
        return self._sequences[index]

    @property
    def free(self) -> int:
        """How many are not taken."""
        return sum(not each.taken for each in self._sequences)

    def take(self, ids: Sequence[int], owner: str = "", adapter: Adapter | None = None) -> HeldSequence:
        """A free sequence that holds as much of the beginning of `ids` as is known, but never all of it.

        Raises EngineError where none is free, or the engine cannot have the adapter.
        """
        wanted = ids[: len(ids) - 1]  # the last token's logits have to be computed
        mine = [each for each in self._sequences if each.owner == owner and each.adapter is adapter and each.tokens]
        source = max(mine, key=lambda each: (shared_length(each.tokens, wanted), not each.taken), default=None)
        shared = shared_length(source.tokens, wanted) if source is not None else 0
        held = self._free_for(source, shared)
        held.taken, held.owner = True, owner
        try:
            if source is not None and source is not held and shared:
                self._engine.copy_sequence(source.index, held.index, shared)
            else:
                self._engine.truncate(held.index, shared)
                if held.adapter is not adapter:
                    self._engine.set_adapter(held.index, adapter)
            held.adapter = adapter
            held.tokens[:] = wanted[:shared]
            if self._prefixes is not None:
                held.tokens[:] = wanted[: self._prefixes.restore(held.index, wanted, owner)]
        except BaseException:
            self.forget(held)
            raise
        held.kept = False
        return held

    def give_back(self, held: HeldSequence) -> None:
        """Free it; its tokens stay until another prompt needs the place."""
        held.touched = max(held.touched, len(held.tokens))
        self._engine.truncate(held.index, len(held.tokens))  # of what was left of a draft
        self._clock += 1
        held.taken, held.used = False, self._clock

    def forget(self, held: HeldSequence) -> None:
        """Free it, and nothing of it is used again."""
        held.touched = max(held.touched, len(held.tokens))
        held.tokens.clear()
        held.kept = True
        self.give_back(held)

    def drop_adapter(self, adapter: Adapter) -> None:
        """Take it off free sequences, with what was computed with it. Raises EngineError while an answer needs it."""
        having = [each for each in self._sequences if each.adapter is adapter]
        if any(each.taken for each in having):
            raise EngineError(f"adapter {adapter.name} is in use: an answer is being made with it")
        for held in having:
            self.forget(held)
            self._engine.set_adapter(held.index, None)
            held.adapter = None

    def keep(self) -> None:
        """Put what free sequences hold into the prefix cache, if there is one."""
        if self._prefixes is None:
            return
        for held in self._sequences:
            if not held.taken and not held.kept:
                held.kept = True
                self._prefixes.store(held.index, held.tokens, held.owner)

    def _free_for(self, source: HeldSequence | None, shared: int) -> HeldSequence:
        """`source` itself where little of it would be lost, else the free one used longest ago."""
        free = [each for each in self._sequences if not each.taken]
        if not free:
            raise EngineError(f"all {len(self._sequences)} sequences of the engine are taken")
        if source is not None and not source.taken and (len(free) == 1 or 2 * shared >= len(source.tokens)):
            return source
        others = [each for each in free if each is not source] or free
        return min(others, key=lambda each: (bool(each.tokens), each.used))


def shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
