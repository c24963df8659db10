"""The rules of a file: one a line, KIND WHERE TEXT.

    # what a rule says of               where it holds     and the text
    word   both    forbidden phrase     # stands by itself, as words; a comment begins with " # "
    text   prompt  anywhere             # inside other words too, and for scripts without blanks
    regex  answer  \\bsk-[a-z0-9]{20,48}\\b

Rules see the folded text (folding.py): lower case, one blank for many.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgebit.daemon.content_filter.folding import fold
from edgebit.daemon.content_filter.patterns import Pattern, compile_pattern
from edgebit.daemon.content_filter.word_automaton import WordAutomaton
from edgebit.errors import ConfigError

FILE_MAX_BYTES = 256 << 10
PHRASES_MAX = 2000
REGEXES_MAX = 100
PHRASE_MAX = 200  # characters

Where = Literal["prompt", "answer"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A `word` or `text` rule, folded."""

    text: str
    whole_words: bool
    line: int


@dataclass(frozen=True, slots=True)
class RegexRule:
    """A `regex` rule."""

    pattern: Pattern
    line: int


class RuleSet:
    """The rules for one place, ready for use."""

    def __init__(self, phrases: Iterable[Phrase], regexes: Iterable[RegexRule]) -> None:
        self.phrases = tuple(phrases)
        self.automaton = WordAutomaton([phrase.text for phrase in self.phrases])
        self.regexes = tuple(regexes)
        self.width = max((rule.pattern.width for rule in self.regexes), default=0)

    def __len__(self) -> int:
        return len(self.phrases) + len(self.regexes)


NO_RULES = RuleSet((), ())


@dataclass(frozen=True, slots=True)
class Rules:
    """Both sets."""

    prompt: RuleSet = NO_RULES
    answer: RuleSet = NO_RULES


def parse_rules(text: str, where: str) -> Rules:
    """The rules of a file's text. Raises ConfigError naming the line."""
    phrases: dict[Where, list[Phrase]] = {"prompt": [], "answer": []}
    regexes: dict[Where, list[RegexRule]] = {"prompt": [], "answer": []}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split(" # ")[0].strip()
        if not content or content.startswith("#"):
            continue
        kind, places, rule = _parts(content, f"{where}: line {number}")
        for place in places:
            if kind == "regex":
                regexes[place].append(RegexRule(_pattern(rule, f"{where}: line {number}"), number))
            else:
                phrases[place].append(_phrase(kind, rule, number, f"{where}: line {number}"))
    for counted, limit, name in ((phrases, PHRASES_MAX, "word and text"), (regexes, REGEXES_MAX, "regex")):
        if max(map(len, counted.values())) > limit:
            raise ConfigError(f"{where} has more than {limit} {name} rules")
    return Rules(
        prompt=RuleSet(phrases["prompt"], regexes["prompt"]), answer=RuleSet(phrases["answer"], regexes["answer"])
    )


def _parts(content: str, where: str) -> tuple[str, tuple[Where, ...], str]:
    parts = content.split(None, 2)
    places: dict[str, tuple[Where, ...]] = {
        "prompt": ("prompt",), "answer": ("answer",), "both": ("prompt", "answer")
    }  # fmt: skip
    if len(parts) < 3 or parts[0] not in ("word", "text", "regex") or parts[1] not in places:
        raise ConfigError(f"{where}: a rule is KIND WHERE TEXT: word, text or regex; prompt, answer or both")
    return parts[0], places[parts[1]], parts[2]


def _phrase(kind: str, rule: str, number: int, where: str) -> Phrase:
    folded = fold(rule).strip()
    if not 1 <= len(folded) <= PHRASE_MAX:
        raise ConfigError(f"{where}: a word or text has 1 to {PHRASE_MAX} characters, without invisible ones")
    return Phrase(folded, kind == "word", number)


def _pattern(rule: str, where: str) -> Pattern:
    try:
        return compile_pattern(rule)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
