"""The prompt program: how a conversation becomes a prompt, as a model file's PRMT section holds it.

Made from the checkpoint's chat template at build (edgebit/checkpoint/chat_template); no Jinja is needed on a device.
Standard library only.
"""

import dataclasses
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self

from edgebit.errors import BundleError, EngineError

ROLES = ("system", "user", "assistant")
SystemPlace = Literal["front", "first user", "last user"]
Segment = tuple[str, bool]  # a text, and whether it is the template's

_HEAD = struct.Struct("<II")
_SIZE = struct.Struct("<I")
_N_TEXTS = {1: 7, 2: 9}  # by version
# Bits of the flags. Those of version 1 are below 64, and STRIP stands for the contents of all roles there.
_BOS, _STRIP, _ALLOW_SYSTEM, _USER_FIRST, _ALTERNATE, _SYSTEM_ANYWHERE = 1, 2, 4, 8, 16, 32
_STRIP_SYSTEM, _STRIP_ASSISTANT, _STRIP_TURN = 64, 128, 256
_IN_FIRST_USER, _IN_LAST_USER, _USER_LAST, _THOUGHT_LINES = 512, 1024, 2048, 4096
_KNOWN_FLAGS = {1: 63, 2: 8191}  # by version


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
    default_system: str = ""  # where the conversation begins with no system message: in the place of one, as it stands
    system_place: SystemPlace = "front"  # or in a user's turn: between its prefix and its content
    add_bos: bool = False  # the begin-of-text token goes first
    strip: tuple[str, ...] = ()  # the roles whose contents lose the white space around them, in the order of ROLES
    strip_turn: bool = False  # system text and content lose it as one, in the user's turn that both stand in
    thought_end: str = ""  # of an assistant's content, only what follows the last of these is written
    thought_lines: bool = False  # and that without the line breaks at its front
    allow_system: bool = True  # a system message may come first
    user_first: bool = False  # the first message, a system message aside, is a user's
    user_last: bool = False  # the last message is a user's
    alternate: bool = False  # users and assistant take turns
    system_anywhere: bool = False  # system messages may stand at any place, any number of times

    def render(self, messages: Sequence[Message]) -> list[Segment]:
        """The prompt for the assistant's next answer, from front to end.

        Special tokens may be recognised in the template's texts only, never in what somebody wrote; apart from that
        the texts are tokenized as one (`Tokenizer.encode_segments`). The begin-of-text token is not among them.
        Raises EngineError where the template does not take this order of roles.
        """
        roles = [message.role for message in messages]
        self._check_roles(roles)
        has_system, in_turn = roles[0] == "system", self.system_place != "front"
        system_text: list[Segment] = [(self.default_system, True)]
        if has_system:
            system_text = [(self.system[0], True), (self._content(messages[0]), False), (self.system[1], True)]
        turns = messages[1:] if has_system else messages
        host = self._host(turns) if in_turn else -1
        segments = [] if in_turn else system_text
        for place, message in enumerate(turns):
            prefix, suffix = {"system": self.system, "user": self.user, "assistant": self.assistant}[message.role]
            segments.append((prefix, True))
            if place != host:
                segments.append((self._content(message), False))
            elif self.strip_turn:
                segments += _stripped([*system_text, (message.content, False)])
            else:
                segments += [*system_text, (self._content(message), False)]
            segments.append((suffix, True))
        return _joined([*segments, (self.generation, True)])

    def to_bytes(self) -> bytes:
        """The PRMT section (docs/model-format.md), in the lowest version that can say it all."""
        version = 1 if self == self._as_version_1() else 2
        texts = (*self.system, *self.user, *self.assistant, self.generation, self.default_system, self.thought_end)
        parts = [_HEAD.pack(version, self._flags(version))]
        for text in texts[: _N_TEXTS[version]]:
            encoded = text.encode()
            parts += [_SIZE.pack(len(encoded)), encoded]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, section: bytes) -> Self:
        """Read a PRMT section. Raises BundleError where it is damaged or of a version that is not known."""
        if len(section) < _HEAD.size:
            raise BundleError(f"section PRMT is damaged: it has {len(section)} bytes, its head alone {_HEAD.size}")
        try:
            version, flags = _HEAD.unpack_from(section)
            if version not in _N_TEXTS or flags & ~_KNOWN_FLAGS[version]:
                raise BundleError(
                    f"section PRMT has version {version}, flags {flags:#x}: this edgebit knows versions 1 and 2"
                )
            texts, at = [], _HEAD.size
            for _ in range(_N_TEXTS[version]):
                if at + _SIZE.size > len(section):
                    raise BundleError(f"section PRMT is damaged: it ends at byte {len(section)}, before a text's size")
                (size,) = _SIZE.unpack_from(section, at)
                at += _SIZE.size + size
                if at > len(section):
                    raise BundleError(f"section PRMT: a text ends at byte {at}, the section has {len(section)}")
                texts.append(section[at - size : at].decode())
        except UnicodeDecodeError as error:
            raise BundleError(f"section PRMT is damaged: {error}") from error
        if at != len(section):
            raise BundleError(f"section PRMT has {len(section) - at} bytes too many")
        program = cls._of(texts, flags | (_STRIP_SYSTEM | _STRIP_ASSISTANT if version == 1 and flags & _STRIP else 0))
        if program.to_bytes() != section:
            raise BundleError(f"section PRMT of version {version} has flags {flags:#x}, which do not go together")
        return program

    @classmethod
    def _of(cls, texts: Sequence[str], flags: int) -> Self:
        """Of the texts in the section's order, and flags as version 2 has them."""
        return cls(
            system=(texts[0], texts[1]),
            user=(texts[2], texts[3]),
            assistant=(texts[4], texts[5]),
            generation=texts[6],
            default_system=texts[7] if len(texts) > 7 else "",
            thought_end=texts[8] if len(texts) > 8 else "",
            system_place="first user" if flags & _IN_FIRST_USER else "last user" if flags & _IN_LAST_USER else "front",
            strip=tuple(role for role, bit in _STRIP_OF.items() if flags & bit),
            **{name: bool(flags & bit) for name, bit in _FLAGS.items()},
        )

    def _as_version_1(self) -> Self:
        return dataclasses.replace(
            self,
            default_system="",
            system_place="front",
            strip=ROLES if self.strip == ROLES else (),
            strip_turn=False,
            thought_end="",
            thought_lines=False,
            user_last=False,
        )

    def _flags(self, version: int) -> int:
        flags = sum(bit for name, bit in _FLAGS.items() if getattr(self, name))
        if version == 1:
            return flags + (_STRIP if self.strip else 0)
        flags += {"front": 0, "first user": _IN_FIRST_USER, "last user": _IN_LAST_USER}[self.system_place]
        return flags + sum(bit for role, bit in _STRIP_OF.items() if role in self.strip)

    def _content(self, message: Message) -> str:
        content = message.content
        if message.role == "assistant" and self.thought_end and self.thought_end in content:
            content = content.rpartition(self.thought_end)[2]
            content = content.lstrip("\n") if self.thought_lines else content
        return content.strip() if message.role in self.strip else content

    def _host(self, turns: Sequence[Message]) -> int:
        """Which message a system text stands in; -1: none, there is no user's."""
        users = [place for place, message in enumerate(turns) if message.role == "user"]
        if not users:
            return -1
        return users[0] if self.system_place == "first user" else users[-1]

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
        if self.user_last and roles[-1] != "user":
            raise EngineError("this model's chat template ends with a user message: it is what the answer is to")
        if self.alternate and any(a == b for a, b in pairwise(turns)):
            raise EngineError("this model's chat template takes user and assistant messages in turns only")
        if self.system_place != "front" and roles[0] == "system" and "user" not in roles:
            raise EngineError("this model's chat template writes a system message into a user's: there is none")


def _stripped(segments: Sequence[Segment]) -> list[Segment]:
    """The same without the white space around all of them together."""
    kept = list(segments)
    while kept and not (text := kept[0][0].lstrip()):
        kept.pop(0)
    if kept:
        kept[0] = (text, kept[0][1])
    while kept and not (text := kept[-1][0].rstrip()):
        kept.pop()
    if kept:
        kept[-1] = (text, kept[-1][1])
    return kept


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """The same without empty ones, and neighbours of one kind as one."""
    joined: list[Segment] = []
    for text, is_template in segments:
        if joined and joined[-1][1] == is_template:
            joined[-1] = (joined[-1][0] + text, is_template)
        elif text:
            joined.append((text, is_template))
    return joined


_STRIP_OF = {"system": _STRIP_SYSTEM, "user": _STRIP, "assistant": _STRIP_ASSISTANT}
_FLAGS = {  # of PromptProgram's fields that say yes or no
    "add_bos": _BOS,
    "allow_system": _ALLOW_SYSTEM,
    "user_first": _USER_FIRST,
    "alternate": _ALTERNATE,
    "system_anywhere": _SYSTEM_ANYWHERE,
    "strip_turn": _STRIP_TURN,
    "user_last": _USER_LAST,
    "thought_lines": _THOUGHT_LINES,
}
