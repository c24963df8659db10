"""The new class of devices: its calls, 50 sentences to learn, 50 others to measure, and old ones to rehearse."""

import json
import random
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from recipes.assistant.examples import Example, training_example
from recipes.assistant.intents import Call, Intent, answer, intents

SEED = 3
REHEARSED = 3000  # examples of the assistant's own training


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "sentences.toml").read_text())


@cache
def new_intents() -> dict[str, Intent]:
    """The calls of the new class alone."""
    return {
        name: Intent(name, tuple(row["slots"]), row["say"], polite=False)
        for name, row in _table().items()
        if isinstance(row, dict)
    }


def all_intents() -> dict[str, Intent]:
    """The assistant's calls and the new ones."""
    return {**intents(), **new_intents()}


def new_examples(part: Literal["train", "test"]) -> list[Example]:
    """The sentences to learn, or those to measure, each once, with names in turn and percents at random."""
    rng = random.Random(f"{SEED} {part}")
    names = _table()["names"]
    found = []
    for intent in new_intents().values():
        for sentence in _table()[intent.name][part]:
            values: Call = {"name": names[len(found) % len(names)], "percent": rng.randint(10, 100)}
            call: Call = {"intent": intent.name, **{slot: values[slot] for slot in intent.slots}}
            found.append(Example(sentence.format(**values), call, f"new:{part}"))
    return found


def write_conversations(path: Path, examples: Iterable[Example]) -> None:
    """Write examples as chats of a user line and its answer, a line of JSON each."""
    lines = []
    for example in examples:
        answered = answer(example.call, all_intents())
        turns = [{"role": "user", "content": example.text}, {"role": "assistant", "content": answered}]
        lines.append(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    path.write_text("".join(lines))


def write_data(folder: Path) -> tuple[Path, Path]:
    """Write what is to be learnt and what is to be rehearsed; gives both paths."""
    new, old = folder / "new.jsonl", folder / "old.jsonl"
    write_conversations(new, new_examples("train"))
    write_conversations(old, (training_example(SEED, number) for number in range(REHEARSED)))
    return new, old
