"""Examples of what people say and the call it asks for: the endless training stream, and the fixed test sets.

    examples("templates")    templates that training never sees
    examples("wordings")     held-out wordings of templates that training knows
    examples("names")        trained wordings with names of devices that training never sees
    examples("seen")         trained wordings, drawn anew
    examples("people")       test rows of the public data sets, in the field: lines that people wrote
    examples("outside")      test rows of the public data sets, out of the field
    examples("near")         held-out wordings out of the field that speak of lamps, locks and the like
    examples("home_assistant")  Home Assistant's own test sentences (see home_assistant.py)

Everything hangs on seeds and on hashes of texts: two runs give the same examples in the same order.
"""

import random
import re
from dataclasses import dataclass
from functools import cache

from recipes.assistant.home_assistant import home_assistant_calls
from recipes.assistant.intents import NONE, Call, answer, intents
from recipes.assistant.public_rows import public_lines
from recipes.assistant.slots import NAME_FILLERS, fill
from recipes.assistant.wordings import (
    Template,
    held_out_pattern,
    held_out_wordings,
    key,
    slots_of,
    training_templates,
)  # fmt: skip
from recipes.assistant.words import words

SPLITS = ("templates", "wordings", "names", "seen", "people", "outside", "near", "home_assistant")
PUBLIC_SHARE = 0.27  # of all training examples, those whose line comes from the public data sets
REFUSED_SHARE = 0.55  # of those, the ones out of the field
MOST_PUBLIC = 50  # lines of an intent beyond which it is not drawn more often
POLITE_SHARE = 0.35
TYPO_SHARE = 0.04
PER_TEMPLATE = 6  # examples of a held-out template in its test set, at most
STATES = {"on": "on", "off": "off", "open": "open", "opened": "open", "closed": "closed", "close": "closed",
          "shut": "closed", "lock": "locked", "locked": "locked", "unlock": "unlocked",
          "unlocked": "unlocked"}  # fmt: skip
# First words of a line that is a wish or a statement: "could you" does not go before it.
NO_ORDER = {"the", "my", "our", "all", "a", "an", "i", "i'm", "i'd", "we", "it", "it's", "its", "there", "is", "are",
            "no", "not", "don't", "dont", "do", "never", "you", "can", "could", "someone", "nobody", "let's", "to",
            "on", "from", "everything"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """One line, the call it asks for, and where the line comes from (a template, or a row of a public data set)."""

    text: str
    call: Call
    origin: str

    @property
    def intent(self) -> str:
        """The name of the call."""
        return str(self.call["intent"])

    @property
    def answer(self) -> str:
        """The JSON text the model shall write."""
        return answer(self.call)


def typo(text: str, rng: random.Random) -> str:
    """The text with one slip of the finger in a word that is no slot."""
    places = list(re.finditer(r"(?<![{\w'])[a-z]{4,}(?![}\w'])", text))
    if not places:
        return text
    place = rng.choice(places)
    at = rng.randrange(place.start() + 1, place.end() - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def stated(wording: str) -> str:
    """The state that a wording without a slot for it asks about; 'any' where it asks for no one state."""
    if "{thing}" in wording or re.search(r"\w or \w", wording):
        return "any"
    found = [STATES[word] for word in wording.split() if word in STATES]
    return found[-1] if found else "any"


def fill_wording(intent: str, wording: str, rng: random.Random, held_out_name: bool) -> tuple[str, Call]:
    """The line and the call of a wording with all its slots drawn."""
    values: Call = {}
    many = False

    def put(match: re.Match[str]) -> str:
        nonlocal many
        if match[1] == "is":
            return "{is}"
        filled = fill(match[1], rng, held_out_name)
        many = many or filled.many
        values.update(filled.call)
        return filled.said

    text = re.sub(r"\{(\w+)\}", put, wording).replace("{is}", "are" if many else "is")
    if intent in ("get_state", "find_state"):
        values.setdefault("state", stated(wording))
    defaults: Call = {"area": "home", "list": "shopping list"}
    slots = {slot: values[slot] if slot in values else defaults[slot] for slot in intents()[intent].slots}
    return text, {"intent": intent, **slots}


def dress(text: str, intent: str, rng: random.Random) -> str:
    """The line with words of politeness, or with a call for attention, around it at times."""
    if rng.random() >= POLITE_SHARE:
        return text
    if not intents()[intent].polite:
        return f"{rng.choice(words('before_question'))} {text}" if rng.random() < 0.3 and intent != NONE else text
    if rng.random() < 0.75:
        is_order = text.split()[0] not in NO_ORDER and not text[0].isdigit()
        text = f"{rng.choice(words('before' if is_order else 'attention'))} {text}"
    return f"{text} {rng.choice(words('after'))}" if rng.random() < 0.4 else text


def written(text: str, rng: random.Random) -> str:
    """The line as somebody may type it: capitals and marks at random."""
    style = rng.random()
    question = re.match(r"(what|how|is|are|who|when|where|which|why|do|does|did|will|can|could|would|should)\b", text)
    if style < 0.45:
        text = re.sub(r"\bi\b", "I", text[:1].upper() + text[1:])
    elif style < 0.47:
        text = text.title()
    if rng.random() < 0.45 and text[-1:].isalnum():
        text += "?" if question else rng.choice((".", ".", "!"))
    return text


def draw(
    template: Template, wording: str, rng: random.Random, *, typos: float = 0.0, new_names: bool = False
) -> Example:
    """One example in one wording of a template."""
    spoiled = typo(wording, rng) if rng.random() < typos else wording
    text, call = fill_wording(template.intent, wording, random.Random(state := rng.getrandbits(64)), new_names)
    if spoiled != wording:
        text, _ = fill_wording(template.intent, spoiled, random.Random(state), new_names)
    return Example(written(dress(text, template.intent, rng), rng), call, template.text)


@cache
def training_lines() -> dict[str, list[Example]]:
    """The training rows of the public data sets by intent, without those that equal a held-out wording."""
    kept: dict[str, list[Example]] = {}
    for line in public_lines("train"):
        if not held_out_pattern().fullmatch(key(line.text)):
            intent = str(line.call["intent"])
            kept.setdefault(intent, []).append(Example(line.text, line.call, line.origin))
    return kept


@cache
def weights() -> tuple[list[str], list[float]]:
    """The intents, and how often each is drawn: one with slots has more to learn than a fixed answer."""
    often = {"turn_on": 4.0, "turn_off": 4.0, "get_state": 5.0, "find_state": 2.5, NONE: 12.0}
    names = list(intents())
    return names, [often.get(name, 1.0 + 0.75 * len(intents()[name].slots)) for name in names]


@cache
def public_weights() -> tuple[list[str], list[int]]:
    """The intents in the field that people's lines are known of, and how often each is drawn: few lines, not often."""
    lines = {name: len(found) for name, found in training_lines().items() if name != NONE}
    return list(lines), [min(count, MOST_PUBLIC) for count in lines.values()]


def training_example(seed: int, number: int) -> Example:
    """The training example of that number, of an endless stream that belongs to a seed."""
    rng = random.Random(f"{seed}/{number}")
    if rng.random() < PUBLIC_SHARE:
        intent = NONE if rng.random() < REFUSED_SHARE else rng.choices(*public_weights())[0]
        line = rng.choice(training_lines()[intent])
        return Example(written(dress(line.text, intent, rng), rng), line.call, line.origin)
    template = rng.choice(training_templates()[rng.choices(*weights())[0]])
    return draw(template, rng.choice(template.wordings), rng, typos=TYPO_SHARE)


def held_out_examples(split: str, seed: int) -> list[Example]:
    """Examples of held-out templates or wordings, at most PER_TEMPLATE of each template; one name in ten is new."""
    rng = random.Random(seed)
    found = []
    for template in held_out_wordings()[split]:
        wordings = list(template.wordings)
        rng.shuffle(wordings)
        slotted = "{" in template.text
        count = PER_TEMPLATE if slotted else min(PER_TEMPLATE, len(wordings))
        for index in range(count):
            found.append(draw(template, wordings[index % len(wordings)], rng, new_names=rng.random() < 0.1))
    return found


def fresh_examples(seed: int, count: int, *, new_names: bool) -> list[Example]:
    """Fresh draws in trained wordings, each intent as often; with `new_names` those that speak of a named device."""
    rng = random.Random(seed)
    groups: list[list[Template]] = []
    for intent, group in training_templates().items():
        kept = [template for template in group if set(slots_of(template.text)) & set(NAME_FILLERS) or not new_names]
        if kept and intent != NONE:
            groups.append(kept)
    found = []
    for _ in range(count):
        template = rng.choice(rng.choice(groups))
        found.append(draw(template, rng.choice(template.wordings), rng, new_names=new_names))
    return found


@cache
def examples(split: str) -> list[Example]:
    """The test set of that name: one of SPLITS."""
    if split in ("templates", "wordings"):
        return [example for example in held_out_examples(split, 11) if example.intent != NONE]
    if split == "near":
        both = held_out_examples("templates", 12) + held_out_examples("wordings", 12)
        return [example for example in both if example.intent == NONE]
    if split in ("names", "seen"):
        return fresh_examples(13, 600, new_names=split == "names")
    if split == "home_assistant":
        return [Example(text, call, f"home_assistant:{origin}") for text, call, origin in home_assistant_calls()]
    lines = [line for line in public_lines("test") if (line.call["intent"] == NONE) == (split == "outside")]
    return [Example(line.text, line.call, line.origin) for line in lines]
