"""A model file in the engine: golden probes at an ISA level, and whether an answer can be one."""

import math
from pathlib import Path

from edgebit.bundle.model_reader import ModelFile
from edgebit.checks import Check
from edgebit.errors import EngineError
from edgebit.runtime.cores import default_threads
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.token_ids import spread_ids

_PROMPT_TOKENS, _ANSWER_TOKENS = 5, 8


def check_probes(path: Path, level: str) -> Check:
    """The golden probes at one ISA level. Raises BundleError where one differs."""
    name = f"golden probes, {level}"
    try:
        library = Library.load(isa=level)
    except EngineError as error:
        return Check(name, "not run", f"this CPU: {error}")
    with ModelFile(path) as file:
        context = file.probe_context
    with Model.open(library, path) as model, Engine(model, ctx_len=context, threads=default_threads()) as engine:
        count = engine.check_probes()
    if not count:
        return Check(name, "not run", "the model file holds none: it was converted with --no-probes")
    return Check(name, "passed", f"{count} bit for bit: hidden state of each layer, logits, greedy tokens")


def check_answer(model: Model) -> Check:
    """A few greedy tokens: every logit a number, and not all of them one."""
    name, info = "answer", model.info
    ids = spread_ids(info.vocab_size, _PROMPT_TOKENS, first=1)
    answer: list[int] = []
    with Engine(model, ctx_len=_PROMPT_TOKENS + _ANSWER_TOKENS, threads=default_threads()) as engine:
        for _ in range(_ANSWER_TOKENS):
            engine.eval(ids)
            logits = engine.logits()
            if not all(map(math.isfinite, logits)):
                return Check(name, "failed", f"the logits after token {len(answer)} of it hold NaN or infinity")
            least, most = min(logits), max(logits)
            if least == most:
                return Check(name, "failed", f"all logits are {most}: the weights are none of a model")
            ids = [max(range(len(logits)), key=logits.__getitem__)]
            answer += ids
    return Check(name, "passed", f"{_ANSWER_TOKENS} greedy tokens, every one of {info.vocab_size:,} logits a number")
