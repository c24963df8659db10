"""How far the probe's token may lie below the best one in another engine: sound weights, and damaged ones.

    python bench/greedy_probe_gaps.py MODEL ONNX_FOLDER [--tokens 64]

MODEL is a model file, ONNX_FOLDER what `edgebit export onnx` wrote of it. First our own engine, with a KV cache of
f16 as golden probes have it, draws so many tokens after prompts of 1, 8 and 72; ONNX Runtime reads them and would
have drawn others where the gap is not 0. Then parts of model.onnx.data at random places are zeroed, and the model's
own probes read: the largest gap, and how many of their tokens differ. Decides NEAR and MOST_TIES of
serving/greedy_probes.py.
"""

import argparse
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgebit.bundle.model_reader import ModelFile
from edgebit.daemon.serving.greedy_probes import shortfall
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
from edgebit.onnx_engine.token_engine import OnnxEngine
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.sampler import Sampler, SamplingParams
from edgebit.runtime.token_engine import TokenEngine
from edgebit.runtime.token_ids import spread_ids

_PROMPTS = (1, 8, 72)
_DAMAGE = (64, 1_000, 5_000, 20_000, 60_000, 200_000)  # bytes
_TRIES = 6


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    library = Library.load()
    with Model.open(library, options.model) as model:
        best = Sampler(library, model.info.vocab_size, SamplingParams())
        engine = open_onnx(options.folder, model)
        print("prompt  tokens that differ  gaps")
        for count in _PROMPTS:
            prompt = spread_ids(model.info.vocab_size, count)
            drawn = list(draw(Engine(model, ctx_len=count + options.tokens + 1), best, prompt, options.tokens))
            found = [gap for gap in gaps(engine, best, prompt, drawn) if gap]
            print(f"{count:6}  {len(found):18}  {' '.join(f'{gap:.4f}' for gap in sorted(found))}")
        print("bytes zeroed  largest gap (tokens that differ) of each try")
        for size in _DAMAGE:
            tries = (damaged(options, model, best, size, random.Random(seed)) for seed in range(_TRIES))
            print(f"{size:12}  {'  '.join(f'{max(found):.3f} ({sum(map(bool, found))})' for found in tries)}")


def open_onnx(folder: Path, model: Model) -> OnnxEngine:
    """On one thread."""
    return OnnxEngine(OnnxSession.open(OnnxFolder.open(folder), threads=1), model, ctx_len=256)


def draw(engine: TokenEngine, best: Sampler, prompt: Sequence[int], tokens: int) -> Iterator[int]:
    """Greedy tokens after the prompt."""
    engine.eval_batch(prompt, [0] * len(prompt))
    for _ in range(tokens):
        token = best.sample(engine.logits())
        yield token
        engine.eval_batch([token], [0])


def gaps(engine: TokenEngine, best: Sampler, prompt: Sequence[int], drawn: Sequence[int]) -> Iterator[float]:
    """Of each drawn token, given those before it: 0 where this engine would draw it too."""
    engine.truncate(0, 0)
    engine.eval_batch(prompt, [0] * len(prompt))
    for token in drawn:
        logits = engine.logits()
        found = best.sample(logits)
        yield 0.0 if found == token else shortfall(logits, found, token)
        engine.eval_batch([token], [0])


def damaged(options: argparse.Namespace, model: Model, best: Sampler, size: int, rng: random.Random) -> list[float]:
    """The gaps of all golden probes with so many bytes zeroed."""
    with tempfile.TemporaryDirectory() as name, ModelFile(options.model) as file:
        folder = shutil.copytree(options.folder, Path(name) / "folder")
        data = bytearray((folder / "model.onnx.data").read_bytes())
        begin = rng.randrange(len(data) - size)
        data[begin : begin + size] = bytes(size)
        (folder / "model.onnx.data").write_bytes(data)
        engine = open_onnx(folder, model)
        return [gap for probe in file.probes for gap in gaps(engine, best, probe.prompt, probe.greedy)]


if __name__ == "__main__":
    main()
