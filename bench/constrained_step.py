"""What holding an answer to a schema costs at full size: the masks of one answer, token by token, beside a decode step.

    python bench/constrained_step.py                        the shape of BitNet b1.58 2B-4T, random weights, made once
    python bench/constrained_step.py --model chat.ebm       a model file: its shape and size of vocabulary are taken

The answer is one of the shipped assistant's, spelt with a vocabulary of made-up words as large as 2B-4T's, once under
the assistant's own schema and once as any JSON object. Milliseconds of CPU, one thread: the masks, and steps behind 32
tokens, with all logits, the best alone, and the best of those that the schema allows in some places.
"""

import argparse
import json
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.constraint_masks import large_section  # noqa: E402
from edgebit.bench.shapes import shape_model  # noqa: E402
from edgebit.runtime.abi import TokenSet  # noqa: E402
from edgebit.runtime.constraint import Constraint, Vocabulary  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.json_schema import any_object, compile_schema  # noqa: E402
from edgebit.runtime.library import Library  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402
from edgebit.runtime.token_ids import spread_ids  # noqa: E402
from edgebit.runtime.tokenizer import Tokenizer  # noqa: E402

SCHEMA = ROOT / "edgebit" / "assistant_model" / "response_schema.json"
ANSWER = (
    b'{"intent":"set_brightness","name":"bedroom lamp","percent":40,"say":"Setting the bedroom lamp to 40 percent."}'
)
PLACES = (b"", b'{"intent":"', b'{"intent":"set_brightness","name":"b')
BEFORE, ROUNDS = 32, 7


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    path = parser.parse_args().model or shape_model("2b4t")
    library = Library.load()
    programs = {"schema": compile_schema(json.loads(SCHEMA.read_text())), "json": any_object()}
    with Model.open(library, path) as model, Tokenizer.from_section(library, large_section()) as tokenizer:
        size = model.info.vocab_size
        print(f"{library.isa}, {size} logits, {tokenizer.vocab_size} tokens")
        answer = tokenizer.encode(ANSWER)
        with Vocabulary(tokenizer, size, []) as vocabulary, Engine(model, ctx_len=2 * BEFORE, logits_rows=4) as engine:
            for name, program in programs.items():
                with Constraint(vocabulary, program) as constraint:
                    show(f"masks, {name}", mask_times(constraint, answer, size))
            show("step, all logits", step_times(engine, size, 0))
            show("step, the best", step_times(engine, size, 1))
            with Constraint(vocabulary, programs["schema"]) as constraint:
                for text in PLACES:
                    constraint.reset()
                    for token in tokenizer.encode(text):
                        constraint.accept(token)
                    show(f"step, after {text.decode()}", step_times(engine, size, 1, constraint.sets([])))
                constraint.reset()
                sets = constraint.sets(tokenizer.encode(PLACES[1])[:3])
                show("four at once, as drafted", step_times(engine, size, 1, sets))


def mask_times(constraint: Constraint, tokens: list[int], size: int) -> list[float]:
    """Of each token of an answer: what its mask takes."""
    logits = memoryview(array("f", bytes(4 * size))).cast("B").cast("f")
    times = []
    for token in tokens:
        times.append(cpu_ms(lambda: constraint.mask(logits)))
        constraint.accept(token)
    return times


def step_times(engine: Engine, size: int, n_best: int, allowed: Sequence[TokenSet | None] = (None,)) -> list[float]:
    """Of several decode steps of as many tokens as `allowed` has sets."""
    ids, rows = spread_ids(size, BEFORE + len(allowed)), len(allowed)
    engine.truncate()
    engine.eval(ids[:BEFORE], n_best=1)
    times = []
    for _ in range(ROUNDS):
        engine.truncate(0, BEFORE)
        step = partial(engine.eval_batch, ids[BEFORE:], [0] * rows, [True] * rows, n_best=n_best, allowed=allowed)
        times.append(cpu_ms(step))
    return times


def show(what: str, times: list[float]) -> None:
    mean = sum(times) / len(times)
    print(f"{what:48} {len(times):3} times, median {median(times):7.3f}, most {max(times):7.3f}, mean {mean:7.3f}")


def cpu_ms(work: Callable[[], object]) -> float:
    started = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - started) / 1e6


if __name__ == "__main__":
    main()
