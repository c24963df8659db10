"""Trains edgebit's demo model on two CPU cores and writes it as a packed BitNet checkpoint.

    python train.py --out ../../edgebit/assistant_model

The same seed, steps and library versions give the same data; the weights may differ in the last digits by CPU.
"""

import argparse
import os
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from checkpoint import write_checkpoint
from data import END_OF_TURN, NO_BOS_SHARE, Dialogue, Sampler
from measure import measure
from model import BitNet, Shape
from tokenizer import train_tokenizer
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # label of a position that has no loss
ROW = 128  # tokens in a row of a batch; several dialogues share it
WARMUP_STEPS = 100


def encode(tokenizer: Tokenizer, dialogue: Dialogue, *, bos: bool) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the answer with its end-of-turn token."""
    prompt = tokenizer.encode(dialogue.prompt).ids
    answer = tokenizer.encode(dialogue.answer + END_OF_TURN, add_special_tokens=False).ids
    return prompt if bos else prompt[1:], answer


def rows(tokenizer: Tokenizer, seed: int, waiting: int = 64) -> Iterator[list[list[int]]]:
    """Endless rows of packed dialogues: ids, labels, positions and dialogue numbers, ROW of each.

    `waiting` dialogues are kept at hand, and the longest that still fits goes next into the row.
    """
    rng = random.Random(seed)
    stream = iter(Sampler(seed))

    def fetch() -> tuple[list[int], list[int]]:
        while True:
            prompt, answer = encode(tokenizer, next(stream), bos=rng.random() >= NO_BOS_SHARE)
            if len(prompt) + len(answer) <= ROW:
                return prompt, answer

    pool = [fetch() for _ in range(waiting)]
    while True:
        ids: list[int] = []
        labels: list[int] = []
        positions: list[int] = []
        numbers: list[int] = []
        rng.shuffle(pool)
        number = 0
        while fitting := [pair for pair in pool if len(pair[0]) + len(pair[1]) <= ROW - len(ids)]:
            # Random first, then the longest that fits, so that long and short dialogues meet evenly.
            pair = fitting[0] if number < 2 else max(fitting, key=lambda pair: len(pair[0]) + len(pair[1]))
            pool.remove(pair)
            pool.append(fetch())
            prompt, answer = pair
            number += 1
            length = len(prompt) + len(answer)
            ids += prompt + answer
            labels += [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
            positions += range(length)
            numbers += [number] * length
        rest = ROW - len(ids)
        yield [ids + [0] * rest, labels + [IGNORED] * rest, positions + [0] * rest, numbers + [0] * rest]


def learning_rate(step: int, progress: float, peak: float) -> float:
    """Linear warm-up, a flat stretch, and a linear fall to zero over the last 60 percent of the progress 0 to 1."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS, (1 - progress) / 0.6)


def train(tokenizer: Tokenizer, args: argparse.Namespace, started: float) -> BitNet:
    """Train a model for args.steps steps or args.minutes, whichever ends first; write it each args.save_every steps.

    The learning rate falls with the budget that is nearer to its end, so a slow machine still ends at rate zero.
    """
    model = BitNet(Shape(vocab_size=tokenizer.get_vocab_size()))
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters", flush=True)
    compiled = torch.compile(model, dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    source = rows(tokenizer, args.seed)
    smooth = 0.0
    for step in range(args.steps):
        progress = max(step / args.steps, (time.monotonic() - started) / 60 / args.minutes)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, progress, args.lr)
        batch = torch.tensor(list(islice(source, args.batch_rows)))
        ids, labels, positions, numbers = batch.unbind(dim=1)
        logits: Tensor = compiled(ids, positions, numbers)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 49:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step + 1} of {args.steps}, loss {smooth:.4f}, {minutes:.1f} min", flush=True)
        if args.save_every and step % args.save_every == args.save_every - 1:
            write_checkpoint(model, tokenizer, args.out)
    return model


def main() -> None:
    """Train the tokenizer, then the model, then measure and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=60.0, help="wall clock limit; when it bites, runs differ")
    parser.add_argument("--batch-rows", type=int, default=16, help=f"rows of {ROW} tokens in a batch")
    parser.add_argument("--lr", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--vocab", type=int, default=768)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measured", type=int, default=400, help="most examples to measure in each test set")
    parser.add_argument("--save-every", type=int, default=0, help="write the checkpoint each so many steps as well")
    args = parser.parse_args()
    started = time.monotonic()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    dialogues = islice(Sampler(args.seed + 1), 60_000)
    texts = (text for dialogue in dialogues for text in (dialogue.prompt.replace(END_OF_TURN, "\n"), dialogue.answer))
    tokenizer = train_tokenizer(texts, args.vocab)
    model = train(tokenizer, args, started)
    write_checkpoint(model, tokenizer, args.out)
    minutes = (time.monotonic() - started) / 60
    print(f"trained in {minutes:.1f} min, wrote {args.out}", flush=True)
    measure(args.out, args.seed + 2, args.measured)


if __name__ == "__main__":
    main()
