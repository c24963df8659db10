"""Measures a written checkpoint on wordings and sentences that it was not trained on.

python measure.py ../../edgebit/assistant_model
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from checkpoint import read_checkpoint
from data import (
    END_OF_TURN,
    JSON_SYSTEM,
    Example,
    answer_json,
    answer_line,
    held_out_examples,
    home_assistant_examples,
    intents_said,
    real_examples,
    render,
    seen_wording_examples,
)
from model import BitNet, greedy
from tokenizers import Tokenizer


def answers(model: BitNet, tokenizer: Tokenizer, texts: list[str], system: str = "") -> list[str]:
    """The model's greedy answers to single user lines."""
    prefix = [("system", system)] if system else []
    prompts = [tokenizer.encode(render([*prefix, ("user", text)])).ids for text in texts]
    return [tokenizer.decode(ids) for ids in greedy(model, prompts, tokenizer.token_to_id(END_OF_TURN))]


def measure(folder: Path, seed: int, most: int) -> None:
    """Print right answers of all, and in percent, for each test set; `most` examples are drawn from a larger set.

    Right is the whole answer, letter by letter; for Home Assistant's sentences it is the intent of the answer.
    """
    model, tokenizer = read_checkpoint(folder)
    rng = random.Random(seed)
    held_out = held_out_examples(seed)
    real = real_examples("test")
    sets: dict[str, Sequence[Example]] = {
        "trained wordings, new names and numbers": seen_wording_examples(seed, most),
        "held-out wordings": held_out,
        "held-out wordings, JSON": held_out,
        "people's lines in scope": [example for example in real if example.intent != "out_of_scope"],
        "people's lines out of scope": [example for example in real if example.intent == "out_of_scope"],
    }

    def note(name: str, right: int, total: int) -> None:
        print(f"{name}: {right} of {total}, {100 * right / total:.1f} %", flush=True)

    for name, examples in sets.items():
        drawn = rng.sample(examples, min(most, len(examples)))
        as_json = name.endswith("JSON")
        wanted = [answer_json(example) if as_json else answer_line(example) for example in drawn]
        given = answers(model, tokenizer, [example.text for example in drawn], JSON_SYSTEM[0] if as_json else "")
        note(name, sum(map(str.__eq__, given, wanted)), len(drawn))
    sentences = home_assistant_examples()
    sentences = rng.sample(sentences, min(most, len(sentences)))
    given = answers(model, tokenizer, [text for text, _ in sentences])
    right = sum(bool(intents_said(answer) & intents) for answer, (_, intents) in zip(given, sentences, strict=True))
    note("Home Assistant's test sentences, intent", right, len(sentences))


def main() -> None:
    """Measure the checkpoint in a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--most", type=int, default=400, help="most examples to measure in each test set")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    measure(args.folder, args.seed, args.most)


if __name__ == "__main__":
    main()
