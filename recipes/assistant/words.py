"""Word lists that fill the slots of wordings, and the hash that decides what is held out."""

import random
import re
import tomllib
from functools import cache
from hashlib import blake2b

from recipes.assistant.intents import DATA

BLENDED_SHARE = 0.25


def hash_of(text: str) -> int:
    """A number of 64 bits that hangs on the text alone: the same on every machine and in every run."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


@cache
def words(kind: str) -> list[str]:
    """A list of words.toml."""
    found: list[str] = tomllib.loads((DATA / "words.toml").read_text())[kind]
    return found


@cache
def lines(name: str) -> list[str]:
    """The lines of a text file in data/."""
    return (DATA / name).read_text().splitlines()


@cache
def device_names() -> dict[str, list[str]]:
    """Names that people gave to devices, by the kind of device."""
    names: dict[str, list[str]] = {}
    for line in lines("device_names.tsv"):
        kind, name = line.split("\t")
        names.setdefault(kind, []).append(name)
    return names


@cache
def free_words() -> list[str]:
    """Words of the public training rows: as parts of names they teach the model to copy what it never saw."""
    rows = lines("clinc_train.tsv") + lines("nlu_train.tsv")
    return sorted({word for row in rows for word in re.findall(r"\b[a-z]{3,11}\b", row.split("\t")[1].lower())})


def free_word(rng: random.Random) -> str:
    """A word at random; one in four is made of the halves of two, so that names must be copied letter by letter."""
    word = rng.choice(free_words())
    if rng.random() >= BLENDED_SHARE:
        return word
    other = rng.choice(free_words())
    return word[: (len(word) + 1) // 2] + other[len(other) // 2 :]


def plural(noun: str) -> str:
    """The plural of a device's name: 'lamp' to 'lamps', 'switch' to 'switches'."""
    if noun.endswith(("ch", "x", "ss", "sh")):
        return noun + "es"
    return noun if noun.endswith("s") else noun + "s"
