"""A baseline without a model: the trained wording that is nearest by TF-IDF, its slots copied from where they stand.

Wordings keep their slots open; the line fills them. A value that the data draw in another form than it is said ("forty
percent", 40) is looked up among values that training draws.
"""

import math
import random
import re
from collections import Counter, defaultdict
from functools import cached_property
from itertools import pairwise

from recipes.assistant.examples import stated, training_lines
from recipes.assistant.intents import NONE, Call, intents
from recipes.assistant.slots import FILLERS
from recipes.assistant.wordings import key, training_templates

DRAWN = 3000  # values of each slot that are looked up
NEAREST = 60  # wordings whose pattern is tried
OPEN = "{}"  # the word for a slot
VALUED = ("percent", "degrees", "duration", "duration_adj", "time", "on_off", "open_closed", "locked")
SLOT_OF = {"duration_adj": "duration", "on_off": "state", "open_closed": "state", "locked": "state",
           "color_other": ""}  # fmt: skip

Row = tuple[str, str, Call | str]  # intent, what is compared with, and the wording it is or the call of a public line


def words_of(text: str) -> list[str]:
    """Words of a wording or line, and their pairs; an open slot is a word of its own."""
    words = re.sub(r"\{\w+\}", OPEN, text).split()
    return [*words, *(" ".join(pair) for pair in pairwise(words))]


class NearestNeighbour:
    """All trained wordings and public training lines, to look up a line among."""

    def __init__(self) -> None:
        wordings = dict.fromkeys(
            (template.intent, key(wording), wording)
            for group in training_templates().values() for template in group for wording in template.wordings
        )  # fmt: skip
        lines = [example for group in training_lines().values() for example in group]
        self.rows: list[Row] = [*wordings, *((line.intent, key(line.text), line.call) for line in lines)]
        counts = [Counter(words_of(text)) for _, text, _ in self.rows]
        frequency = Counter(word for row in counts for word in row)
        self.idf = {word: math.log((1 + len(counts)) / (1 + count)) + 1 for word, count in frequency.items()}
        self.postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, row in enumerate(counts):
            weights = {word: count * self.idf[word] for word, count in row.items()}
            size = math.sqrt(sum(weight * weight for weight in weights.values()))
            for word, weight in weights.items():
                self.postings[word].append((number, weight / size))

    @cached_property
    def values(self) -> dict[str, dict[str, str | int]]:
        """What values are called by what is said for them, of each slot that says them otherwise."""
        rng = random.Random(5)
        found: dict[str, dict[str, str | int]] = {}
        for slot in VALUED:
            for _ in range(DRAWN):
                filled = FILLERS[slot](rng)
                found.setdefault(slot, {})[key(filled.said)] = next(iter(filled.call.values()))
        return found

    def nearest(self, line: str) -> list[int]:
        """Numbers of the rows that are most like a line, the best first."""
        scores: dict[int, float] = defaultdict(float)
        for word, count in Counter(words_of(line)).items():
            for number, weight in self.postings.get(word, ()):
                scores[number] += count * self.idf[word] * weight
        return sorted(scores, key=lambda number: (-scores[number], number))[:NEAREST]

    def call(self, text: str) -> Call:
        """The call of the near row that has most words of the line in its pattern; of the nearest, where none has."""
        line = key(text)
        rows = [self.rows[number] for number in self.nearest(line)]
        best: tuple[int, Call] | None = None
        for intent, wording, source in rows:
            if isinstance(source, dict):
                call = source if wording == line else None
            else:
                call = self._filled(intent, wording, source, line)
            fixed = len(re.sub(r"\{\w+\}", "", wording).split())
            if call is not None and (best is None or fixed > best[0]):
                best = fixed, call
        if best is not None:
            return best[1]
        return self._copied(rows[0], line) if rows else {"intent": NONE}

    def _filled(self, intent: str, wording: str, source: str, line: str) -> Call | None:
        slots = [slot for slot in re.findall(r"\{(\w+)\}", source) if slot != "is"]
        pattern = re.sub(r"\\\{\w+\\\}", "(.+?)", re.escape(wording))
        match = re.fullmatch(pattern, line)
        if match is None or len(match.groups()) != len(slots):
            return None
        said = dict(zip(slots, match.groups(), strict=True))
        if any(slot in self.values and words not in self.values[slot] for slot, words in said.items()):
            return None
        return self._call(intent, source, said)

    def _copied(self, row: Row, line: str) -> Call:
        intent, wording, source = row
        if isinstance(source, dict):
            return source
        left = " ".join(word for word in line.split() if word not in wording.split())
        return self._call(intent, source, {"thing": left})

    def _call(self, intent: str, source: str, said: dict[str, str]) -> Call:
        found: Call = {"state": stated(source)}
        for filler, words in said.items():
            slot = SLOT_OF.get(filler, filler)
            slot = slot if slot in intents()[intent].slots else "name"
            found[slot] = self.values.get(filler, {}).get(words, words)
            if slot == "name":
                found[slot] = re.sub(r"^((?:all )?)(?:of )?(.+?) (?:in|of|at) (.+)$", r"\1\3 \2", words)
        defaults: Call = {"area": "home", "list": "shopping list"}
        return {"intent": intent, **{slot: found.get(slot, defaults.get(slot, "")) for slot in intents()[intent].slots}}
