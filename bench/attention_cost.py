"""What attention costs at a long context, in one layer of 2B-4T's shape times 30: a table by ISA level and KV type.

    python bench/attention_cost.py [--isa avx2,avx512vnni] [--threads 1] [--steps 40]

Run it from a checkout whose build/host is up to date. Decode is the fastest of so many steps at that context less the
fastest near position 16, so that attention is left; prefill is the fastest of five chunks of 128 tokens that end
there, the layer's projections in it. One layer's keys and values fit in a third-level cache, so these figures are of
computing; a whole model reads its KV cache from memory, and that can take longer.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edgebit.convert import convert  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.library import Library  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402
from edgebit.synthesize import SHAPES, synthesize  # noqa: E402

CONTEXTS, CHUNK, NEAR, LAYERS = (2048, 4096), 128, 16, SHAPES["2b4t"].n_layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--isa", default=Library.load().isa, help="ISA levels, with commas; default: the best here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    SHAPES["layer"] = dataclasses.replace(
        SHAPES["2b4t"], n_layers=1, ffn_size=64, vocab_size=1024, n_specials=16, context_max=CONTEXTS[-1] + 256
    )
    print("| ISA level, KV type | " + " | ".join(f"decode at {n:,} | prefill at {n:,}" for n in CONTEXTS) + " |")
    print("|---|" + "---|" * 2 * len(CONTEXTS))
    with tempfile.TemporaryDirectory() as name:
        synthesize("layer", Path(name) / "checkpoint")
        path = Path(name) / "model.ebm"
        convert(Path(name) / "checkpoint", path, probes=False)
        for isa in options.isa.split(","):
            with Model.open(Library.load(isa=isa), path) as model:
                for kv in ("f16", "int8"):
                    with Engine(model, threads=options.threads, batch_len=CHUNK, kv=kv) as engine:
                        seconds = measure(engine, options.steps)
                    print(
                        f"| {isa}, {kv} | " + " | ".join(f"{s * LAYERS * 1e3:.1f}" for s in seconds) + " |", flush=True
                    )


def measure(engine: Engine, steps: int) -> list[float]:
    """Seconds of one layer: for each context, a decode step and a token of a prefill chunk."""
    tokens = [7919 * i % 1000 for i in range(CONTEXTS[-1] + steps)]
    engine.eval(tokens[:NEAR])
    near = _fastest_step(engine, tokens, steps)
    found = []
    for context in CONTEXTS:
        engine.eval(tokens[engine.length() : context - CHUNK])
        chunks = []
        for _ in range(5):
            engine.truncate(0, context - CHUNK)
            chunks.append(_seconds(engine, tokens[context - CHUNK : context]))
        found += [_fastest_step(engine, tokens, steps) - near, min(chunks) / CHUNK]
    return found


def _fastest_step(engine: Engine, tokens: list[int], steps: int) -> float:
    begin = engine.length()
    found = min(_seconds(engine, [token]) for token in tokens[begin : begin + steps])
    engine.truncate(0, begin)
    return found


def _seconds(engine: Engine, tokens: list[int]) -> float:
    started = time.perf_counter()
    engine.eval(tokens)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
