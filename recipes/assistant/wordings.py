"""The wordings of every intent, and which of them are held out.

A template is a line of data/wordings: (a|b) takes one, [a] takes a or nothing, <m> is a macro, {slot} is filled. What
it expands to, slots still open, is a wording. A hash of the text decides what is held out, in two ways: whole templates
of each intent, and single wordings of the other templates. A wording that equals a held-out one but for what does not
change its sense (see `key`) is not trained on either.
"""

import re
from dataclasses import dataclass
from functools import cache
from math import ceil

from recipes.assistant.intents import DATA
from recipes.assistant.words import hash_of, words

MACROS = {"whats": "(what is|what's|whats)"}
TEMPLATES_HELD_OUT = 0.13  # of the templates of each intent, and at least two
SPLIT = "second"  # drawn anew, since answers to what the first one held out were read
WORDINGS_HELD_OUT = 10  # one in so many wordings of the other templates

NAMES = "switch|light|device|lock|cover|fan|thing"
GROUPS = "switches|covers|locks"
CONTRACTIONS = (
    (r"\bwhats\b|\bwhat's\b", "what is"), (r"\bhow's\b", "how is"), (r"\bi'm\b", "i am"), (r"\bi'd like\b", "i want"),
    (r"\bi would like\b", "i want"), (r"\bit's\b|\bits\b", "it is"), (r"\bthat's\b", "that is"),
    (r"\bdon't\b", "do not"), (r"\bcan't\b|\bcannot\b", "can not"), (r"\blet's\b", "let us"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Template:
    """One line of the wordings with all that it expands to; `held_out` says whether all of it is."""

    intent: str
    text: str
    wordings: tuple[str, ...]
    held_out: bool


def expand(template: str) -> list[str]:
    """All wordings of a template, each once, in the order of its alternatives."""
    for name, text in MACROS.items():
        template = template.replace(f"<{name}>", text)
    group = re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", template)
    if group is None:
        return [" ".join(template.split())]
    choices = group[1].split("|") if group[1] is not None else ["", *group[2].split("|")]
    before, after = template[: group.start()], template[group.end() :]
    return list(dict.fromkeys(text for choice in choices for text in expand(before + choice + after)))


@cache
def politeness() -> re.Pattern[str]:
    """Matches one piece of politeness before or after a line."""
    before, after = (
        "|".join(sorted(map(re.escape, [*words(kind), *words(other)]), key=lambda text: (-len(text), text)))
        for kind, other in (("before", "before_question"), ("after", "after"))
    )
    return re.compile(rf"^(?:{before})\b[ ,]*(?=\S)|(?<=\S)[ ,]+(?:{after})$")


def unpolite(text: str) -> str:
    """The text without words of politeness around it."""
    short = politeness().sub("", text)
    return text if short == text else unpolite(short)


@cache
def key(text: str) -> str:
    """What two wordings have alike that say the same thing: no case, marks, contractions, articles or politeness."""
    text = re.sub(r"[.,!?]", "", text.lower())
    for pattern, full in CONTRACTIONS:
        text = re.sub(pattern, full, text)
    text = re.sub(rf"\{{(?:{NAMES})\}}", "{name}", text)
    text = re.sub(rf"\{{(?:{GROUPS})\}}", "{group}", text)
    text = text.replace("{is}", "is")
    text = re.sub(r"\b(?:the|a|an|my|our|your|this|that)\b", "", unpolite(" ".join(text.split())))
    return " ".join(text.split())


def slots_of(wording: str) -> list[str]:
    """The names of the slots in a wording or template."""
    return re.findall(r"\{(\w+)\}", wording)


@cache
def templates() -> dict[str, list[Template]]:
    """All templates by intent, in the order of the files."""
    found: dict[str, list[str]] = {}
    for path in sorted((DATA / "wordings").glob("*.txt")):
        intent = ""
        for line in path.read_text().splitlines():
            if match := re.fullmatch(r"\[(\w+)\]", line):
                intent = match[1]
            elif line and not line.startswith("#"):
                found.setdefault(intent, []).append(line)
    return {intent: split(intent, list(dict.fromkeys(texts))) for intent, texts in found.items()}


def split(intent: str, texts: list[str]) -> list[Template]:
    """The templates of one intent, those with the lowest hashes held out."""
    count = max(2, ceil(TEMPLATES_HELD_OUT * len(texts)))
    held_out = set(sorted(texts, key=lambda text: hash_of(f"{SPLIT} {intent}: {text}"))[:count])
    return [Template(intent, text, tuple(expand(text)), text in held_out) for text in texts]


@cache
def held_out_wordings() -> dict[str, list[Template]]:
    """The test: templates held out whole ('templates'), and the held-out wordings of the others ('wordings')."""
    every = [template for group in templates().values() for template in group]
    whole = [template for template in every if template.held_out]
    known = {key(wording) for template in whole for wording in template.wordings}
    single = []
    for template in every:
        chosen = tuple(
            wording
            for wording in template.wordings
            if hash_of(f"{SPLIT} {template.intent}: {key(wording)}") % WORDINGS_HELD_OUT == 0
            and key(wording) not in known
        )
        if chosen and not template.held_out and len(template.wordings) > 1:
            single.append(Template(template.intent, template.text, chosen, True))
    return {"templates": whole, "wordings": single}


@cache
def held_out_keys() -> frozenset[str]:
    """The keys of all held-out wordings."""
    return frozenset(
        key(wording) for group in held_out_wordings().values() for template in group for wording in template.wordings
    )


@cache
def training_templates() -> dict[str, list[Template]]:
    """The templates that training draws from, with the wordings that are not held out."""
    kept: dict[str, list[Template]] = {}
    for intent, group in templates().items():
        for template in group:
            allowed = tuple(wording for wording in template.wordings if key(wording) not in held_out_keys())
            if allowed and not template.held_out:
                kept.setdefault(intent, []).append(Template(intent, template.text, allowed, False))
    return kept


@cache
def held_out_pattern() -> re.Pattern[str]:
    """Matches the key of a line that is a filled held-out wording."""
    texts = sorted(text for text in held_out_keys() if re.sub(r"\{\w+\}|some", "", text).strip())
    return re.compile("|".join(re.sub(r"\\\{\w+\\\}", r"\\S+(?: \\S+){0,4}", re.escape(text)) for text in texts))
