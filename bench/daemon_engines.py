"""Our own engine beside ONNX Runtime as the daemon runs them: answers at once, and how soon a long prompt is cancelled.

    python bench/daemon_engines.py MODEL ONNX_FOLDER [--threads 1] [--tokens 32]

MODEL is a model file or bundle, ONNX_FOLDER what `edgebit export onnx` wrote of it. Each row is a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.contract.messages import GenerateRequest
from edgebit.daemon.serving.engine import LoadedModel
from edgebit.runtime.eval_errors import Cancelled
from edgebit.runtime.generation import Answer
from edgebit.runtime.memory import peak_rss_bytes
from edgebit.runtime.token_ids import spread_ids

_PROMPT, _LONG_PROMPT = 16, 512  # tokens
_CANCELS = 5


def main() -> None:
    """Print a table for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--engine", choices=("native", "onnx"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(measure(options)))
        return
    print("engine  load s  tok/s of 1  of 2  of 4 answers at once  cancelled after ms  peak RSS MiB")
    for engine in ("native", "onnx"):
        argv = [sys.executable, __file__, *sys.argv[1:], "--engine", engine]
        row = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True).stdout)
        speeds = "  ".join(f"{speed:6.2f}" for speed in row["tok_s"])
        print(f"{engine:6}  {row['load_s']:6.2f}  {speeds}  {row['cancel_ms']:8.1f}  {row['rss_mib']:8.0f}")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """One engine: load, decode speed over all answers at once, how long a pass goes on after cancel(), memory."""
    began = time.monotonic()
    config = EngineConfig(
        engine=options.engine,
        onnx_folder=str(options.folder),
        threads=options.threads,
        ctx_len=1024,
        sequences=4,
        speculate=0,
        prefix_memory_mib=0,
        batch_len=_LONG_PROMPT,
        kv="f32",
    )
    model = LoadedModel.open(options.model, config)
    load_s = time.monotonic() - began
    speeds = [decode_speed(model, count, options.tokens) for count in (1, 2, 4)]
    return {
        "load_s": load_s,
        "tok_s": speeds,
        "cancel_ms": statistics.median(cancel_ms(model, part / (_CANCELS + 1)) for part in range(1, _CANCELS + 1)),
        "rss_mib": peak_rss_bytes() / (1 << 20),
    }


def begin(model: LoadedModel, prompt: int, tokens: int, owner: str):
    """An answer that has nothing of others'."""
    request = GenerateRequest(
        prompt="", messages=(), sampling={"temperature": 0.0}, seed=0, max_tokens=tokens, stop=(), stream=False,
        format="json",
    )  # fmt: skip
    ids = spread_ids(500, prompt)
    return model.begin(request, ids, Answer(prompt_tokens=len(ids)), owner)


def decode_speed(model: LoadedModel, count: int, tokens: int) -> float:
    """Tokens a second over all, prompts not counted."""
    answers = [begin(model, _PROMPT, tokens, f"{count} {number}") for number in range(count)]
    while any(answer.prompt_left for answer in answers):
        model.step(answers, 0)
    before = sum(len(answer.answer.tokens) for answer in answers)
    began = time.monotonic()
    while not all(answer.done for answer in answers):
        model.step(answers)
    took_s, drawn = time.monotonic() - began, sum(len(answer.answer.tokens) for answer in answers) - before
    for answer in answers:
        model.forget(answer)
    return drawn / took_s


def cancel_ms(model: LoadedModel, share: float) -> float:
    """How long a pass of a long prompt goes on after cancel(), called after a share of what it takes."""
    whole = begin(model, _LONG_PROMPT, 1, "whole")
    began = time.monotonic()
    model.step([whole])
    took_s = time.monotonic() - began
    model.forget(whole)
    cut = begin(model, _LONG_PROMPT, 1, "cut")
    cancelled_at = []
    timer = threading.Timer(took_s * share, lambda: (cancelled_at.append(time.monotonic()), model.cancel()))
    timer.start()
    try:
        model.step([cut])
        timer.join()
        model.cancel_reset()
        return 0.0
    except Cancelled:
        return 1000 * (time.monotonic() - cancelled_at[0])
    finally:
        model.forget(cut)


if __name__ == "__main__":
    main()
