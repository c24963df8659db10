"""The process that is measured: one engine, kept to its cores, asked one thing at a time.

Run as a program with its Spec as a JSON argument (asked_process/serving.py). Standard library and runtime only, as on a
device, so that its start is that of an engine and not of a command line.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgebit.asked_process.serving import serve
from edgebit.runtime.engine import KV_TYPES, Engine
from edgebit.runtime.library import Library
from edgebit.runtime.memory import peak_rss_bytes
from edgebit.runtime.model import Model
from edgebit.runtime.sampler import Sampler, SamplingParams
from edgebit.runtime.token_ids import spread_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What a worker opens: nothing but the library where model is None."""

    model: str | None
    offset: int = 0
    size: int = 0
    threads: int = 1
    ctx_len: int = 0
    sequences: int = 1
    kv: str = KV_TYPES[0]
    isa: str | None = None

    def argument(self) -> str:
        """The JSON that the program takes."""
        return json.dumps(asdict(self))


class Worker:
    """An opened engine, and what can be asked of it. `opened_ns`: the clock after each step of opening it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.opened_ns = {"began": time.monotonic_ns()}
        self.library = Library.load(isa=spec.isa)
        self.opened_ns["library"] = time.monotonic_ns()
        if spec.model is not None:
            self.model = Model.open(self.library, Path(spec.model), offset=spec.offset, size=spec.size)
            self.opened_ns["model"] = time.monotonic_ns()
            self.engine = Engine(
                self.model,
                ctx_len=spec.ctx_len,
                sequences=spec.sequences,
                threads=spec.threads,
                kv=spec.kv,
                logits_rows=spec.sequences,
            )
            self.opened_ns["engine"] = time.monotonic_ns()
            self.sampler = Sampler(self.library, self.model.info.vocab_size, SamplingParams())

    def about_library(self) -> dict[str, Any]:
        """Version and ISA levels."""
        return {
            "isa": self.library.isa,
            "isa_names": self.library.isa_names,
            "library_version": self.library.version,
        }

    def facts(self) -> dict[str, Any]:
        """What was opened."""
        info, stats = self.model.info, self.engine.stats()
        return {
            **self.about_library(),
            "info": asdict(info),
            "kv_bytes_per_token": stats.kv_bytes / (self.engine.ctx_len * self.spec.sequences),
            "scratch_bytes": stats.arena_bytes,
        }

    def probes(self) -> dict[str, Any]:
        """Runs the golden probes: the speeds of an engine that computes something else are worth nothing."""
        return {"probes": self.engine.check_probes()}

    def prefill(self, tokens: int) -> dict[str, Any]:
        """Seconds that a prompt of so many tokens takes, to the logits of its last."""
        self.engine.truncate(0, 0)
        began = time.perf_counter()
        self.engine.eval(self._tokens(0, tokens), n_best=self.sampler.reach())
        self.sampler.sample(self.engine.logits())
        return {"seconds": time.perf_counter() - began}

    def decode(self, context: int, tokens: int, all_logits: bool = False) -> dict[str, Any]:
        """Seconds of so many steps behind a context of so many tokens: one token computed, and the next one drawn.

        The context is computed once and kept; the step before the first is not counted. What is drawn is not what is
        computed next, so that all engines and runs compute the same. all_logits: as for sampling from all of them.
        Also the rows of the head that a step reads again, in its middle and its low plane.
        """
        n_best = 0 if all_logits else self.sampler.reach()
        length = min(self.engine.length(), context)
        self.engine.truncate(0, length)
        if length < context:
            self.engine.eval(self._tokens(length, context - length))
        self.engine.eval(self._tokens(context, 1))
        self.engine.truncate(0, context)
        steps, before = [[token] for token in self._tokens(context, tokens)], self.engine.stats()
        began = time.perf_counter()
        for step in steps:
            self.engine.eval(step, n_best=n_best)
            self.sampler.sample(self.engine.logits())
        seconds = time.perf_counter() - began
        now = self.engine.stats()
        return {
            "seconds": seconds,
            "middle_rows": (now.head_middle_rows - before.head_middle_rows) / tokens,
            "low_rows": (now.head_low_rows - before.head_low_rows) / tokens,
        }

    def sequences(self, count: int, tokens: int) -> dict[str, Any]:
        """Seconds of so many steps that each give `count` sequences one token and its logits."""
        members, wanted = list(range(count)), [True] * count
        for sequence in range(self.spec.sequences):
            self.engine.truncate(sequence, 0)
        steps = [[self._tokens(step, 1)[0] + sequence for sequence in members] for step in range(tokens + 1)]
        self.engine.eval_batch(steps[0], members, wanted, n_best=self.sampler.reach())
        began = time.perf_counter()
        for step in steps[1:]:
            self.engine.eval_batch(step, members, wanted, n_best=self.sampler.reach())
            for row in members:
                self.sampler.sample(self.engine.logits(row))
        return {"seconds": time.perf_counter() - began}

    def memory(self) -> dict[str, Any]:
        """The most memory this process has held."""
        return {"peak_rss_bytes": peak_rss_bytes()}

    def limits(self, n_bytes: int) -> dict[str, Any]:
        """What this machine can do at most with the spec's threads."""
        return {
            "isa": self.library.isa,
            "read_bytes_s": self.library.measure_read(self.spec.threads, n_bytes),
            "int8_mac_s": self.library.measure_int8(self.spec.threads),
        }

    def start(self) -> dict[str, Any]:
        """The clock after each step up to the first token."""
        self.engine.eval(self._tokens(0, 1), n_best=self.sampler.reach())
        self.sampler.sample(self.engine.logits())
        return {"clock_ns": {**self.opened_ns, "token": time.monotonic_ns()}, **self.memory()}

    def _tokens(self, first: int, count: int) -> list[int]:
        """Tokens that say nothing, spread over the vocabulary; room is left behind them for one a sequence."""
        room = max(self.model.info.vocab_size - self.spec.sequences, 1)
        return spread_ids(room, count, first)


_REQUESTS = ("about_library", "facts", "probes", "prefill", "decode", "sequences", "memory", "limits", "start")


def main(argument: str) -> None:
    """Open what `argument` says, then answer."""
    serve(lambda: Worker(Spec(**json.loads(argument))), _REQUESTS)


if __name__ == "__main__":
    main(sys.argv[1])
