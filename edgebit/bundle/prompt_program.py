"""The prompt program: how a conversation becomes a prompt, as a model file's PRMT section holds it.

Made from the checkpoint's chat template at build (edgebit/checkpoint/chat_template.py); no Jinja is needed on a device.
Standard library only.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from edgebit.errors import BundleError, EngineError

ROLES = ("system", "user", "assistant")

_VERSION = 1
_HEAD = struct.Struct("<II")
_SIZE = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str  # one of ROLES
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptProgram:
    """What stands around the messages of a conversation, and which orders of roles there can be."""

    system: tuple[str, str]  # prefix and suffix of a system message
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str  # after the last message: where the assistant's answer begins
    add_bos: bool = False  # the begin-of-text token goes first
    strip: bool = False  # contents lose the white space around them
    allow_system: bool = True  # a system message may come first
    user_first: bool = False  # the first message, a system message aside, is a user's
    alternate: bool = False  # users and assistant take turns
    system_anywhere: bool = False  # system messages may stand at any place, any number of times

    def render(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """The prompt for the assistant's next answer, as (text, is it the template's) from front to end.

        Special tokens may be recognised in the template's texts only, never in what somebody wrote; apart from that
        the texts are tokenized as one (`Tokenizer.encode_segments`). The begin-of-text token is not among them.
        Raises EngineError where the template does not take this order of roles.
        """
        self._check_roles([message.role for message in messages])
        segments: list[tuple[str, bool]] = []
        pending = ""  # of the template
        for message in messages:
            prefix, suffix = {"system": self.system, "user": self.user, "assistant": self.assistant}[message.role]
            content = message.content.strip() if self.strip else message.content
            pending += prefix
            if content:
                segments += [(pending, True)] if pending else []
                segments.append((content, False))
                pending = ""
            pending += suffix
        pending += self.generation
        return [*segments, (pending, True)] if pending else segments

    def to_bytes(self) -> bytes:
        """The PRMT section: docs/model-format.md."""
        flags = sum(bit for bit, is_set in zip(_FLAG_BITS, self._flags(), strict=True) if is_set)
        texts = [text.encode() for text in (*self.system, *self.user, *self.assistant, self.generation)]
        return _HEAD.pack(_VERSION, flags) + b"".join(_SIZE.pack(len(text)) + text for text in texts)

    @classmethod
    def from_bytes(cls, section: bytes) -> Self:
        """Read a PRMT section. Raises BundleError where it is damaged or of another version."""
        try:
            version, flags = _HEAD.unpack_from(section)
            if version != _VERSION or flags >= 2 * _FLAG_BITS[-1]:
                raise BundleError(f"section PRMT has version {version}, flags {flags:#x}: this edgebit knows version 1")
            texts, at = [], _HEAD.size
            for _ in range(7):
                (size,) = _SIZE.unpack_from(section, at)
                at += _SIZE.size + size
                if at > len(section):
                    raise BundleError(f"section PRMT: a text ends at byte {at}, the section has {len(section)}")
                texts.append(section[at - size : at].decode())
        except (struct.error, UnicodeDecodeError) as error:
            raise BundleError(f"section PRMT is damaged: {error}") from error
        if at != len(section):
            raise BundleError(f"section PRMT has {len(section) - at} bytes too many")
        bos, strip, system, user_first, alternate, anywhere = (bool(flags & bit) for bit in _FLAG_BITS)
        return cls(
            system=(texts[0], texts[1]),
            user=(texts[2], texts[3]),
            assistant=(texts[4], texts[5]),
            generation=texts[6],
            add_bos=bos,
            strip=strip,
            allow_system=system,
            user_first=user_first,
            alternate=alternate,
            system_anywhere=anywhere,
        )

    def _flags(self) -> tuple[bool, ...]:
        return (self.add_bos, self.strip, self.allow_system, self.user_first, self.alternate, self.system_anywhere)

    def _check_roles(self, roles: Sequence[str]) -> None:
        """Raise EngineError where the template does not take messages of these roles in this order."""
        if not roles:
            raise EngineError("the conversation is empty: it needs at least one message")
        for place, role in enumerate(roles):
            if role not in ROLES:
                raise EngineError(f"message {place} has role {role!r}: it must be one of {', '.join(ROLES)}")
            if role == "system" and not self.allow_system:
                raise EngineError("this model's chat template has no place for a system message")
            if role == "system" and place > 0 and not self.system_anywhere:
                raise EngineError(f"message {place} is a system message: this model takes one at the front only")
        turns = [role for role in roles if role != "system"]
        if self.user_first and (not turns or turns[0] != "user"):
            raise EngineError("this model's chat template begins with a user message")
        if self.alternate and any(a == b for a, b in pairwise(turns)):
            raise EngineError("this model's chat template takes user and assistant messages in turns only")


_FLAG_BITS = (1, 2, 4, 8, 16, 32)  # in the order of PromptProgram._flags()
