"""The process in which ONNX Runtime is measured: an exported folder, asked what worker.Worker is asked."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgebit.asked_process.serving import serve
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
from edgebit.runtime.library import Library
from edgebit.runtime.memory import peak_rss_bytes
from edgebit.runtime.sampler import Sampler, SamplingParams
from edgebit.runtime.token_ids import spread_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxSpec:
    """What a worker opens."""

    folder: str
    library: str | None  # of operators, or "none"; None: as binding.find_library()
    threads: int
    ctx_len: int

    def argument(self) -> str:
        """The JSON that the program takes."""
        return json.dumps(asdict(self))


class OnnxWorker:
    """An opened session with one sequence."""

    def __init__(self, spec: OnnxSpec) -> None:
        began = time.monotonic_ns()
        self._folder = OnnxFolder.open(Path(spec.folder))
        self._session = OnnxSession.open(self._folder, threads=spec.threads, library=spec.library)
        self._decoder = Decoder(self._session, ctx_len=spec.ctx_len)
        self._opened_ns = {"began": began, "engine": time.monotonic_ns()}
        self._sampler = Sampler(Library.load(), self._folder.conf.vocab_size, SamplingParams())

    def said(self) -> dict[str, Any]:
        """What runs, for the report."""
        binding = self._session.binding
        return {
            "runtime": f"ONNX Runtime {self._session.version}",
            "kernel": binding.state,
            "fallback": binding.fallback if binding.state == "fallback" else None,
            "ops": self._folder.ops,
            "note": binding.note,
        }

    def start(self) -> dict[str, Any]:
        """The clock after each step up to the first token."""
        self._decoder.truncate(0)
        self._step([self._token(0)])
        return {"clock_ns": {**self._opened_ns, "token": time.monotonic_ns()}}

    def prefill(self, tokens: int) -> dict[str, Any]:
        """Seconds that a prompt of so many tokens takes, to the token drawn from the logits of its last."""
        self._decoder.truncate(0)
        ids = [self._token(place) for place in range(tokens)]
        began = time.perf_counter()
        self._step(ids)
        return {"seconds": time.perf_counter() - began}

    def decode(self, context: int, tokens: int) -> dict[str, Any]:
        """Seconds of so many steps behind a context of so many tokens; as worker.Worker.decode()."""
        length = min(self._decoder.length, context)
        self._decoder.truncate(length)
        if length < context:
            self._decoder.append([self._token(place) for place in range(length, context)])
        steps = [[self._token(context + place)] for place in range(tokens)]
        self._decoder.append(steps[0])  # this one is not counted
        self._decoder.truncate(context)
        began = time.perf_counter()
        for step in steps:
            self._step(step)
        return {"seconds": time.perf_counter() - began}

    def memory(self) -> dict[str, Any]:
        """The most memory this process has held."""
        return {"peak_rss_bytes": peak_rss_bytes()}

    def _step(self, ids: list[int]) -> None:
        self._sampler.sample(memoryview(self._decoder.append(ids)[0]))

    def _token(self, place: int) -> int:
        """Those that our own engine is measured with."""
        return spread_ids(max(self._folder.conf.vocab_size - 1, 1), 1, place)[0]


def main(argument: str) -> None:
    """Open what `argument` says, then answer."""
    spec = OnnxSpec(**json.loads(argument))
    serve(lambda: OnnxWorker(spec), ("said", "start", "prefill", "decode", "memory"))
