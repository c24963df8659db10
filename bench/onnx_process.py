"""The process in which one ONNX graph is measured (edgebit.bench.asked_process), and what starts it.

What it imports is there before memory is first looked at, so that what it grows by is the graph's.
"""

import ctypes
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgebit.bench.asked_process import AskedProcess
from edgebit.bench.serving import serve
from edgebit.errors import EngineError

_LEAST_S = 0.03  # a figure is the median of calls that take so long together, and of three at least
_WARM_CALLS = 2


class Graph:
    """One opened session; `opened` tells what opening took."""

    def __init__(self, model: str, threads: int, library: str | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        before, began = memory(), time.perf_counter()
        if library is not None:
            options.register_custom_ops_library(library)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._load_s, self._before = time.perf_counter() - began, before
        self._library = library
        self.caches: dict[str, Any] = {}

    def opened(self) -> dict[str, Any]:
        """Seconds to open it, bytes that this process has grown by since, and kernels of the library that are bound."""
        now = memory()
        grown = {f"{kind}_bytes": now[kind] - self._before[kind] for kind in now}
        bound = 0
        if self._library is not None:
            count = ctypes.CDLL(self._library).edgebit_ort_kernels
            count.restype = ctypes.c_uint64
            bound = count()
        return {"load_s": self._load_s, **grown, "kernels": bound, "onnxruntime": onnxruntime.__version__}

    def run(self, x: str, y: str) -> dict[str, Any]:
        """Compute the array in file `x` once, and write what comes out to `y`."""
        try:
            made = self.session.run(None, {"X": np.load(x)})
        except Exception as error:  # of onnxruntime's bindings
            raise EngineError(" ".join(str(error).split())[:300]) from error
        np.save(y, made[0])
        return {}

    def time(self, x: str) -> dict[str, Any]:
        """Median seconds of a call with the array in file `x`."""
        feed = {"X": np.load(x)}
        for _ in range(_WARM_CALLS):
            self.session.run(None, feed)
        calls: list[float] = []
        while len(calls) < 3 or sum(calls) < _LEAST_S:
            began = time.perf_counter()
            self.session.run(None, feed)
            calls.append(time.perf_counter() - began)
        return {"seconds": statistics.median(calls)}

    def prefill(self, tokens: int) -> dict[str, Any]:
        """Seconds of a decoder's call with so many tokens and no past, whose cache is kept; argmax of what comes."""
        past = {given.name: np.zeros([1, given.shape[1], 0, given.shape[3]], np.float32)
                for given in self.session.get_inputs() if given.name.startswith("past_key_values.")}  # fmt: skip
        began = time.perf_counter()
        token = self._step(np.arange(tokens, dtype=np.int64)[None] * 7 % 997, past)
        return {"seconds": time.perf_counter() - began, "token": token}

    def decode(self, tokens: int) -> dict[str, Any]:
        """Median seconds of so many steps behind the last prefill, greedily."""
        token, steps, chosen = 1, [], []
        for _ in range(tokens):
            began = time.perf_counter()
            token = self._step(np.array([[token]], np.int64), self.caches)
            steps.append(time.perf_counter() - began)
            chosen.append(token)
        return {"seconds": statistics.median(steps), "tokens": chosen}

    def _step(self, ids: Any, past: dict[str, Any]) -> int:
        length = ids.shape[1] + next(iter(past.values())).shape[2]
        feed = {"input_ids": ids, "attention_mask": np.ones([1, length], np.int64), **past}
        made = self.session.run(None, feed)
        names = [output.name for output in self.session.get_outputs()]
        self.caches = {name.replace("present.", "past_key_values."): value
                       for name, value in zip(names, made, strict=True) if name.startswith("present.")}  # fmt: skip
        return int(made[names.index("logits")][0, -1].argmax())


def memory() -> dict[str, int]:
    """Resident bytes of this process: its own (anon), and those of mapped files (file)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {kind: 1024 * int(fields[f"Rss{kind.title()}"].split()[0]) for kind in ("anon", "file")}


def open_graph(model: Path, threads: int, library: Path | None) -> AskedProcess:
    """The process, with a graph opened in it."""
    spec = {"model": str(model), "threads": threads, "library": None if library is None else str(library)}
    return AskedProcess([sys.executable, __file__, json.dumps(spec)], threads)


def main(spec: str) -> None:
    """Open the graph, then answer."""
    serve(lambda: _opened(**json.loads(spec)), ("opened", "run", "time", "prefill", "decode"))


def _opened(**spec: Any) -> Graph:
    try:
        return Graph(**spec)
    except Exception as error:  # whatever the runtime raises is that way's answer
        raise EngineError(" ".join(str(error).split())[:300]) from error


if __name__ == "__main__":
    main(sys.argv[1])
