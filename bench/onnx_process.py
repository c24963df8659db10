"""The process in which one ONNX graph is measured (edgebit.asked_process.process), and what starts it.

What it imports is there before memory is first looked at, so that what it grows by is the graph's.
"""

import ctypes
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgebit.asked_process.process import AskedProcess
from edgebit.asked_process.serving import serve
from edgebit.errors import EngineError

_START = "import os, sys; sys.path[:] = sys.argv[1].split(os.pathsep); from onnx_process import main; main(sys.argv[2])"
_LEAST_S = 0.03  # a figure is the median of calls that take so long together, and of three at least
_WARM_CALLS = 2


class Graph:
    """One opened session; `opened` tells what opening took."""

    def __init__(self, model: str, threads: int, library: str | None, optimization: str) -> None:
        options = onnxruntime.SessionOptions()
        if optimization == "off":
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        elif optimization == "late":
            options.add_session_config_entry("session.disable_aot_function_inlining", "1")
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        before, began = memory(), time.perf_counter()
        if library is not None:
            options.register_custom_ops_library(library)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._load_s, self._before = time.perf_counter() - began, before
        self._library = library

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


def memory() -> dict[str, int]:
    """Resident bytes of this process: its own (anon), and those of mapped files (file)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {kind: 1024 * int(fields[f"Rss{kind.title()}"].split()[0]) for kind in ("anon", "file")}


def open_graph(model: Path, threads: int, library: Path | None, optimization: str = "all") -> AskedProcess:
    """The process, with a graph opened in it; its onnxruntime is the one that this process would import.

    optimization: "all", "off" (ORT_DISABLE_ALL), or "late", all, with functions inlined after the first passes
    """
    given = None if library is None else str(library)
    spec = {"model": str(model), "threads": threads, "library": given, "optimization": optimization}
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return AskedProcess([sys.executable, "-c", _START, path, json.dumps(spec)], threads)


def main(spec: str) -> None:
    """Open the graph, then answer."""
    serve(lambda: _opened(**json.loads(spec)), ("opened", "run", "time"))


def _opened(**spec: Any) -> Graph:
    try:
        return Graph(**spec)
    except Exception as error:  # whatever the runtime raises is that way's answer
        raise EngineError(" ".join(str(error).split())[:300]) from error
