"""Measures a checkpoint on the test sets: share of calls that are right in every slot, and of right intents.

    python -m recipes.assistant.measuring DIR/ternary [--most 300] [--free] [--json FILE]

Answers are held to the schema of the answers as the engine holds them, by the same code; --free leaves that out. The
decoder is the one that trained, in PyTorch: it takes the float twin as well as the master.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edgebit.bundle.prompt_program import Message
from edgebit.checkpoint.tokenizer import read_tokenizer
from edgebit.runtime.constraint import Constraint, Vocabulary
from edgebit.runtime.json_schema import compile_schema
from edgebit.train.data.rendering import Encoder
from edgebit.train.decoder import Decoder
from edgebit.train.greedy import greedy
from edgebit.train.master import read_master
from recipes.assistant.examples import SPLITS, Example, examples
from recipes.assistant.intents import response_schema

LONGEST = 320  # tokens of an answer
AT_ONCE = 64  # prompts of one length that are computed together


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did on one test set; shares are of all its examples."""

    split: str
    examples: int
    exact: float  # intent and all slots are right
    intent: float
    valid: float  # the answer is a JSON object


def call_of(answer: str) -> dict[str, Any]:
    """The call in an answer, without what is said; empty where the answer is no JSON object."""
    try:
        found = json.loads(answer)
    except ValueError:
        return {}
    return {key: value for key, value in found.items() if key != "say"} if isinstance(found, dict) else {}


@torch.no_grad()
def constrained(
    decoder: Decoder, prompts: Sequence[Sequence[int]], stop: Sequence[int], vocabulary: Vocabulary, program: bytes
) -> list[list[int]]:
    """The most likely answer to each prompt, all of one length, of those that the program allows."""
    answers: list[list[int]] = [[] for _ in prompts]
    ways = [Constraint(vocabulary, program) for _ in prompts]
    going = list(range(len(prompts)))
    ids = torch.tensor([list(prompt) for prompt in prompts])
    for _ in range(LONGEST):
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        logits = decoder.head(decoder.model(ids, positions, torch.zeros_like(ids))[:, -1]).numpy()
        best = []
        for row, number in enumerate(going):
            line = logits[row].copy()
            ways[number].mask(memoryview(line))
            best.append(int(line.argmax()))
        kept = [row for row, token in enumerate(best) if token not in stop]
        going = [going[row] for row in kept]
        if not kept:
            break
        tokens = torch.tensor([[best[row]] for row in kept])
        ids = torch.cat((ids[kept], tokens), dim=1)
        for number, row in zip(going, kept, strict=True):
            ways[number].accept(best[row])
            answers[number].append(best[row])
    for way in ways:
        way.close()
    return answers


def answers_of(decoder: Decoder, encoder: Encoder, texts: Sequence[str], *, free: bool = False) -> list[str]:
    """What the model writes after each line."""
    read = read_tokenizer(encoder.folder)
    segments = [encoder.segments([Message("user", text)]) for text in texts]
    prompts = [encoder.tokenizer.encode_segments(each, begin=read.bos_token) for each in segments]
    stops = sorted(read.stop_tokens)
    found: list[list[int]] = [[] for _ in prompts]
    if free:
        found = greedy(decoder, prompts, stop=stops, limit=LONGEST)
    else:
        program = compile_schema(response_schema())
        vocabulary = Vocabulary(encoder.tokenizer, encoder.vocab_size, stops)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        for length in sorted({len(prompt) for prompt in prompts}):
            same = [number for number in order if len(prompts[number]) == length]
            for at in range(0, len(same), AT_ONCE):
                part = same[at : at + AT_ONCE]
                tokens = constrained(decoder, [prompts[number] for number in part], stops, vocabulary, program)
                for number, answer in zip(part, tokens, strict=True):
                    found[number] = answer
        vocabulary.close()
    return [encoder.tokenizer.decode(answer).decode(errors="replace") for answer in found]


def score(split: str, wanted: Sequence[Example], answers: Sequence[str]) -> Score:
    """How many of the answers carry the call that was wanted."""
    calls = [call_of(answer) for answer in answers]
    count = max(len(wanted), 1)
    exact = sum(call == example.call for call, example in zip(calls, wanted, strict=True))
    intent = sum(call.get("intent") == example.intent for call, example in zip(calls, wanted, strict=True))
    return Score(split, len(wanted), exact / count, intent / count, sum(map(bool, calls)) / count)


def drawn(split: str, most: int) -> list[Example]:
    """The test set, or `most` of its examples, always the same ones."""
    found = examples(split)
    return found if len(found) <= most else random.Random(split).sample(found, most)


def main() -> None:
    """Measure the checkpoint in the folder that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", nargs="+", default=SPLITS, choices=SPLITS)
    parser.add_argument("--most", type=int, default=10**9, help="examples of a test set")
    parser.add_argument("--free", action="store_true", help="without the schema")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where the figures go as JSON")
    parser.add_argument("--wrong", type=Path, help="where wrong answers go, a line of JSON each")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    decoder, encoder = read_master(args.folder), Encoder(args.folder)
    scores, wrong = [], []
    for split in args.splits:
        wanted = drawn(split, args.most)
        answers = answers_of(decoder, encoder, [example.text for example in wanted], free=args.free)
        scores.append(found := score(split, wanted, answers))
        pairs = zip(wanted, answers, strict=True)
        wrong += [[split, example.text, example.answer, answer] for example, answer in pairs
                  if call_of(answer) != example.call]  # fmt: skip
        print(
            f"{split}: {found.exact:.1%} exact, {found.intent:.1%} intent, {found.valid:.1%} JSON, of {found.examples}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in scores], indent=1) + "\n")
    if args.wrong:
        args.wrong.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in wrong))


if __name__ == "__main__":
    main()
