"""Answers that are certain to come again the same: kept in memory for a while, in bounded space.

An answer is certain where nothing in it is drawn by chance, or the caller has chosen the seed. A process has one model:
nothing here outlives a change of it.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from edgebit.runtime.generation import Answer, DoneReason

_OVERHEAD_BYTES = 400  # of an entry, beside its text and tokens


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """What was answered, as the model said it: what filters let through may be another today."""

    text: str
    tokens: tuple[int, ...]
    done_reason: DoneReason

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.text.encode()) + 36 * len(self.tokens) + _OVERHEAD_BYTES

    def recalled(self, prompt_tokens: int) -> Answer:
        """The answer to a prompt for which nothing had to be computed."""
        return Answer(
            prompt_tokens=prompt_tokens,
            reused_tokens=prompt_tokens,
            tokens=list(self.tokens),
            text=self.text,
            done_reason=self.done_reason,
        )


class AnswerCache:
    """Looked up by whom an answer was computed for and by all that determines it. From any thread."""

    def __init__(self, size_bytes: int, keep_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """size_bytes 0: nothing is kept."""
        self._size_bytes = size_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, bytes], tuple[float, KnownAnswer]] = OrderedDict()  # last used last
        self._held = 0

    def find(self, owner: str, key: bytes | None) -> KnownAnswer | None:
        """The answer, if it is known and not too old."""
        if key is None:
            return None
        with self._lock:
            found = self._entries.get((owner, key))
            if found is None:
                return None
            if self._clock() - found[0] >= self._keep_s:
                self._drop((owner, key))
                return None
            self._entries.move_to_end((owner, key))
            return found[1]

    def keep(self, owner: str, key: bytes | None, answer: Answer) -> None:
        """Know a complete answer from now on."""
        if key is None or not self._size_bytes:
            return
        known = KnownAnswer(answer.text, tuple(answer.tokens), answer.done_reason)
        if known.size > self._size_bytes:
            return
        with self._lock:
            self._drop((owner, key))
            self._entries[owner, key] = self._clock(), known
            self._held += known.size
            while self._held > self._size_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, place: tuple[str, bytes]) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self._held -= entry[1].size
