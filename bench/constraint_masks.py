"""What holding an answer to a schema costs: the trie, opening, and a mask, for vocabularies of 512 and 128,000 tokens.

    python bench/constraint_masks.py

The large vocabulary is one of made-up words. The schema is anyOf of 80 objects that differ in the const of their first
property. Times in milliseconds of the CPU, the first one of each place (nothing kept yet) and the next.
"""

import json
import random
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from edgebit.checkpoint.tokenizer import read_tokenizer
from edgebit.runtime.constraint import Constraint, Vocabulary
from edgebit.runtime.json_schema import compile_schema
from edgebit.runtime.library import Library
from edgebit.runtime.tokenizer import Tokenizer

TINY = Path(__file__).resolve().parent.parent / "tests" / "reference" / "bitnet-packed" / "tokenizer.json"


def large_section() -> bytes:
    """Section TOKN of the small tokenizer with words of one to four syllables added up to 128,000 tokens."""
    rng, content = random.Random(3), json.loads(TINY.read_text())
    vocab = content["model"]["vocab"]
    syllables = [a + b for a in "bcdfghjklmnprstvw" for b in "aeiouy"] + ["ing", "er", "tion", "st", "th", "ch"]
    token = max([*vocab.values(), *(each["id"] for each in content["added_tokens"])]) + 1
    while token < 128_000:
        word = rng.choice(["", "\u0120"]) + "".join(rng.choice(syllables) for _ in range(rng.randint(1, 4)))
        if vocab.setdefault(word, token) == token:
            token += 1
    content["model"]["ignore_merges"] = True
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tokenizer.json"
        place.write_text(json.dumps(content))
        return read_tokenizer(place).section()


def calls() -> dict[str, object]:
    """80 calls of four properties."""
    text = {"type": "string", "maxLength": 200}
    branches = [
        {"type": "object", "required": list(each), "properties": each, "additionalProperties": False}
        for number in range(80)
        for each in [
            {"intent": {"const": f"set_{number}_on"}, "name": text, "percent": {"type": "integer"}, "say": text}
        ]
    ]
    return {"anyOf": branches}


def took(action: Callable[[], object]) -> float:
    started = time.thread_time()
    action()
    return 1e3 * (time.thread_time() - started)


def measure(tokenizer: Tokenizer, program: bytes) -> None:
    size = tokenizer.vocab_size
    trie = took(lambda: Vocabulary(tokenizer, size, []).close())
    with Vocabulary(tokenizer, size, []) as vocabulary, Constraint(vocabulary, program) as constraint:
        opened = took(lambda: Constraint(vocabulary, program).close())
        print(f"{size} tokens: trie {trie:.1f}, open {opened:.2f}")
        logits = memoryview(array("f", bytes(4 * size))).cast("B").cast("f")
        for place, text in (("start", b""), ("intent", b'{"intent":"se'), ("string", b't_7_on","name":"b')):
            for byte in text:
                constraint.accept(tokenizer.encode(bytes([byte]))[0])
            first, then = (took(lambda: constraint.mask(logits)) for _ in range(2))
            print(f"  mask, {place}: {first:.3f}, then {then:.3f}")


def main() -> None:
    print(f"compile {took(lambda: compile_schema(calls())):.1f}")
    library, program = Library.load(), compile_schema(calls())
    for section in (read_tokenizer(TINY).section(), large_section()):
        with Tokenizer.from_section(library, section) as tokenizer:
            measure(tokenizer, program)


if __name__ == "__main__":
    main()
