"""What a record of training data says: a text, or a conversation with answers to be learnt."""

import hashlib
import json
from dataclasses import dataclass

from edgebit.bundle.prompt_program import Message
from edgebit.errors import TrainError


class RecordError(TrainError):
    """One record cannot be learnt from; others may."""

    def __init__(self, reason: str, message: str) -> None:
        """reason: a few words that records of the same fault share; message: what is wrong, and how to mend it."""
        super().__init__(message)
        self.reason = reason

    def at(self, place: str) -> "RecordError":
        """The same, saying where."""
        return RecordError(self.reason, f"{place}: {self}")


@dataclass(frozen=True, slots=True)
class Text:
    """A plain text: every token of it is learnt."""

    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of which the assistant's are learnt, but for those at the places `given`."""

    messages: tuple[Message, ...]
    given: frozenset[int] = frozenset()


Example = Text | Conversation


def digest(example: Example) -> int:
    """64 bits that stand for the content, whatever the file, format and place that it was read from."""
    if isinstance(example, Text):
        content: object = example.text
    else:
        messages = [[message.role, message.content] for message in example.messages]
        content = [*messages, sorted(example.given)] if example.given else messages
    said = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big")


def is_held_out(digest: int, share: float) -> bool:
    """Whether the example is evaluated on and not learnt: `share` of all are, whatever else there is beside them."""
    return digest < share * 2**64
