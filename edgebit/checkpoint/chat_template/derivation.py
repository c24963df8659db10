"""Prompt programs that a chat template may amount to, read off a few conversations with marked contents.

A prompt can be cut into prefixes and suffixes in several ways, of which the proof finds the right one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgebit.bundle.prompt_program import ROLES, Message, PromptProgram, SystemPlace
from edgebit.checkpoint.chat_template.rendering import ChatTemplate, RefusedError
from edgebit.errors import TokenizerError

# What is found again in a rendered prompt. Letters only: no template looks for them, and nothing escapes them.
_MARKS = ("QzvmarkA", "QzvmarkB", "QzvmarkC")
_THOUGHT_END = "</think>"


def candidates(template: ChatTemplate, bos: str) -> Iterator[PromptProgram]:
    """Programs that write the marked conversations as the template does; their restrictions are for the proof to find.

    bos: the text of the begin-of-text token, which is left out of the programs' texts. Raises TokenizerError where
    there can be none, RefusedError where the template does not take a single message of a user.
    """
    cuts = _cut(template, bos)
    strip = tuple(role for role in ROLES if _strips(template, role))
    thought_end, thought_lines = _thoughts(template)
    found = False
    for turns in _turns(cuts):
        for default in _defaults(cuts.front, turns.user[0]):
            for system in _systems(template, bos, turns.user[0]):
                if default.text and system.allowed and default.in_turn != (system.place != "front"):
                    continue
                place: SystemPlace = system.place if system.allowed or not default.in_turn else "first user"
                merges = (True, False) if place != "front" and "user" in strip else (False,)
                for strip_turn in merges:
                    found = True
                    yield PromptProgram(
                        system=system.around,
                        user=turns.user,
                        assistant=turns.assistant,
                        generation=turns.generation,
                        default_system=default.text,
                        system_place=place,
                        add_bos=bool(bos),
                        strip=strip,
                        strip_turn=strip_turn,
                        thought_end=thought_end,
                        thought_lines=thought_lines,
                        allow_system=system.allowed,
                        system_anywhere=system.allowed and place == "front",
                    )
    if not found:
        raise TokenizerError("the chat template writes a message in another way when others stand around it")


@dataclass(frozen=True, slots=True)
class _Cuts:
    """What the template writes around marked contents."""

    front: str  # before a user's first content, begin-of-text left out
    tail: str  # after it, where an answer is asked for
    user_to_assistant: str
    assistant_to_user: str
    user_to_user: str | None  # None: it refuses or joins them
    user_end: str | None  # after a user's content, where no answer is asked for
    assistant_end: str | None


@dataclass(frozen=True, slots=True)
class _Turns:
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str


@dataclass(frozen=True, slots=True)
class _Default:
    text: str
    in_turn: bool


@dataclass(frozen=True, slots=True)
class _System:
    allowed: bool
    around: tuple[str, str] = ("", "")
    place: SystemPlace = "front"


def _cut(template: ChatTemplate, bos: str) -> _Cuts:
    front, tail = _split(template, ["user"])
    try:
        _, user_to_assistant, assistant_to_user, _ = _split(template, ["user", "assistant", "user"])
    except RefusedError as refused:
        raise TokenizerError(f"the chat template refuses a conversation of three messages: {refused}") from refused
    user_to_user = _try_split(template, ["user", "user"])
    user_end = _try_split(template, ["user"], generation=False)
    assistant_end = _try_split(template, ["user", "assistant"], generation=False)
    return _Cuts(
        front=front.removeprefix(bos),
        tail=tail,
        user_to_assistant=user_to_assistant,
        assistant_to_user=assistant_to_user,
        user_to_user=user_to_user[1] if user_to_user else None,
        user_end=user_end[1] if user_end else None,
        assistant_end=assistant_end[2] if assistant_end else None,
    )


def _turns(cuts: _Cuts) -> Iterator[_Turns]:
    """Where a suffix ends and the next prefix begins: every way in which the cuts fit together, likely ones first."""
    seen = set()
    for suffix in _user_suffixes(cuts):
        for prefix in _user_prefixes(cuts, suffix):
            fits = (
                cuts.tail.startswith(suffix)
                and cuts.user_to_assistant.startswith(suffix)
                and cuts.assistant_to_user.endswith(prefix)
                and (cuts.front.startswith(prefix) or cuts.front.endswith(prefix))
            )
            turns = _Turns(
                user=(prefix, suffix),
                assistant=(
                    cuts.user_to_assistant[len(suffix) :],
                    cuts.assistant_to_user[: len(cuts.assistant_to_user) - len(prefix)],
                ),
                generation=cuts.tail[len(suffix) :],
            )
            if fits and turns not in seen:
                seen.add(turns)
                yield turns


def _user_suffixes(cuts: _Cuts) -> Iterator[str]:
    if cuts.user_to_user is not None and cuts.user_to_user.endswith(cuts.front):
        yield cuts.user_to_user[: len(cuts.user_to_user) - len(cuts.front)]
    if cuts.user_end is not None:
        yield cuts.user_end
    yield _common_front(cuts.tail, cuts.user_to_assistant)


def _user_prefixes(cuts: _Cuts, suffix: str) -> Iterator[str]:
    yield cuts.front
    if cuts.user_to_user is not None and cuts.user_to_user.startswith(suffix):
        yield cuts.user_to_user[len(suffix) :]
    if cuts.assistant_end is not None and cuts.assistant_to_user.startswith(cuts.assistant_end):
        yield cuts.assistant_to_user[len(cuts.assistant_end) :]
    yield _common_front(cuts.front[::-1], cuts.assistant_to_user[::-1])[::-1]


def _common_front(one: str, other: str) -> str:
    length = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))
    return one[:length]


def _defaults(front: str, prefix: str) -> Iterator[_Default]:
    """What the front holds besides the user's prefix."""
    if front.endswith(prefix):
        yield _Default(front[: len(front) - len(prefix)], in_turn=False)
    if front.startswith(prefix) and front != prefix:
        yield _Default(front[len(prefix) :], in_turn=True)


def _systems(template: ChatTemplate, bos: str, user_prefix: str) -> Iterator[_System]:
    """Where a system message may stand: at the front, in a user's turn, nowhere."""
    parts = _try_split(template, ["system", "user"])
    if parts is not None:
        front, between = parts[0].removeprefix(bos), parts[1]
        if between.endswith(user_prefix):
            yield _System(True, (front, between[: len(between) - len(user_prefix)]))
        if front.startswith(user_prefix):
            around = (front[len(user_prefix) :], between)
            yield _System(True, around, "first user")
            yield _System(True, around, "last user")
    yield _System(False)


def _strips(template: ChatTemplate, role: str) -> bool:
    """Whether white space around that role's contents is left out."""
    roles = {"system": ("system", "user"), "user": ("user",), "assistant": ("user", "assistant", "user")}[role]
    bare = [Message(each, mark) for each, mark in zip(roles, _MARKS, strict=False)]
    spaced = [Message(role, f" {each.content} ") if each.role == role else each for each in bare]
    try:
        return template.render(spaced) == template.render(bare)
    except RefusedError:
        return False


def _thoughts(template: ChatTemplate) -> tuple[str, bool]:
    """What ends thoughts that earlier answers lose (Qwen 3), and whether line breaks after it go with them."""

    def render(answer: str) -> str:
        return template.render([Message("user", _MARKS[0]), Message("assistant", answer), Message("user", _MARKS[2])])

    bare, lines = _MARKS[1], f"\n\n{_MARKS[1]}"
    whole = render(_THOUGHT_END + lines)
    if _THOUGHT_END in whole:
        return "", False
    if whole == render(lines):
        return _THOUGHT_END, False
    return (_THOUGHT_END, True) if whole == render(bare) else ("", False)


def _try_split(template: ChatTemplate, roles: Sequence[str], *, generation: bool = True) -> list[str] | None:
    try:
        return _split(template, roles, generation=generation)
    except (RefusedError, TokenizerError):
        return None


def _split(template: ChatTemplate, roles: Sequence[str], *, generation: bool = True) -> list[str]:
    """What a conversation's prompt holds before, between and after its contents."""
    marks = _MARKS[: len(roles)]
    messages = [Message(role, mark) for role, mark in zip(roles, marks, strict=True)]
    text = template.render(messages, generation=generation)
    parts = []
    for mark in marks:
        before, found, rest = text.partition(mark)
        if not found or mark in rest:
            raise TokenizerError(
                f"the chat template does not write the {' '.join(roles)} messages once each, in order, as they are: "
                f"where {mark!r} is due it writes {_around(mark, text)!r}"
            )
        parts.append(before)
        text = rest
    return [*parts, text]


def _around(mark: str, text: str) -> str:
    """The part of a text where a mark stands in small or large letters; its beginning where it does not."""
    start = max(0, text.lower().find(mark.lower()) - 20)
    return text[start : start + 60]
