"""Conversations that the device remembers, so that a caller sends the new message alone.

Each belongs to one principal. They live in memory: a restart forgets them, and a reply's count of turns says so.
"""

import dataclasses
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgebit.bundle.prompt_program import Message
from edgebit.daemon.contract.messages import GenerateRequest

Turn = tuple[Message, ...]  # what was said, and the answer to it
ConversationKey = tuple[str, str]  # principal, and the name it has given


@dataclass(frozen=True, slots=True)
class Conversation:
    """What has been said, oldest first."""

    system: Message | None = None
    turns: tuple[Turn, ...] = ()
    dropped: int = 0  # turns before these, which the context has no room for
    tokens: int = 0  # of the last prompt and its answer
    adapter: str | None = None  # that its answers are made with: its name,
    adapter_sha256: str = ""  # and its file, since another one may have the name by now

    def asked(self, messages: Sequence[Message]) -> tuple["Conversation", Turn]:
        """What new messages go on with, and what is new in it: a system message replaces the one before."""
        system = [each for each in messages if each.role == "system"]
        new = tuple(each for each in messages if each.role != "system")
        return (dataclasses.replace(self, system=system[-1]) if system else self), new

    def without(self, count: int) -> "Conversation":
        """The same without its oldest turns."""
        return dataclasses.replace(self, turns=self.turns[count:], dropped=self.dropped + count) if count else self

    def prompt(self, new: Turn) -> tuple[Message, ...]:
        """All messages, in the model's order."""
        head = (self.system,) if self.system is not None else ()
        return (*head, *(message for turn in self.turns for message in turn), *new)

    def figures(self) -> dict[str, int]:
        """For a reply: how many turns there are, how many of these the device has dropped, and tokens of the others."""
        dropped = {"dropped": self.dropped} if self.dropped else {}
        return {"turns": len(self.turns) + self.dropped, **dropped, "tokens": self.tokens}

    def answered(self, request: GenerateRequest, new: Turn, text: str, tokens: int) -> "Conversation":
        """The same with one more turn, answered as the request wants it, whose adapter was looked up."""
        turns = (*self.turns, (*new, Message("assistant", text)))
        adapter, sha256 = request.adapter, request.adapter_sha256
        return dataclasses.replace(self, turns=turns, tokens=tokens, adapter=adapter, adapter_sha256=sha256)


class Conversations:
    """As many as there is room for: where one too many begins, the one unused longest goes, of whoever has most."""

    def __init__(self, most: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """From any thread. idle_s: how long a conversation is remembered in which nothing is said."""
        self._most = most
        self._idle_s = idle_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[ConversationKey, tuple[float, Conversation]] = OrderedDict()  # last used last

    def __len__(self) -> int:
        return len(self._kept)

    def so_far(self, key: ConversationKey) -> Conversation:
        """What is remembered of it: nothing, if it has not begun."""
        with self._lock:
            self._forget_idle()
            return self._kept[key][1] if key in self._kept else Conversation()

    def keep(self, key: ConversationKey, conversation: Conversation) -> None:
        """Remember it as it is now."""
        with self._lock:
            self._kept.pop(key, None)
            self._forget_idle()
            self._kept[key] = self._clock(), conversation
            while len(self._kept) > self._most:
                counts = Counter(principal for principal, _ in self._kept)
                most = max(counts.values())
                del self._kept[next(each for each in self._kept if counts[each[0]] == most)]

    def _forget_idle(self) -> None:
        now = self._clock()
        while self._kept and now - next(iter(self._kept.values()))[0] >= self._idle_s:
            self._kept.popitem(last=False)
