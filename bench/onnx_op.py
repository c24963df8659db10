"""One ternary projection in ONNX Runtime, in every way that it can be computed there: time, error, memory, load.

    python bench/onnx_op.py [--shapes 2560x6912,...] [--tokens 1,8,64] [--threads 1,2] [--rounds 15] [--json]
        [--ways kernel,compact,nbits2-256,nbits2-128-0,...] [--optimization all,off,late]

--ways: keys of bench/onnx_projections.py, or nbitsBITS-BLOCK[-ACCURACY_LEVEL]. --optimization: off is ORT_DISABLE_ALL,
late session.disable_aot_function_inlining. Graphs run in the onnxruntime that Python finds first: PYTHONPATH can name
a folder with another release (pip install --target).

Needs edgebit[onnx] and a built library. A shape is columns x rows, K x N. Each way has a process of its own for each
thread count, kept to as many cores; a round asks all of them, one after the other, each round another first. A time is
the median of the rounds, with the least and the most, of calls that go on for 30 ms at least. Error: the largest
difference from what BitNet defines, over the largest value. Memory: what the process has grown by from before the
session to after its calls, its own (anon) and of mapped files; load: of the session.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx_process import open_graph
from onnx_projections import WAYS, Way, bitnet, finish, products_of, way_of

from edgebit.asked_process.process import AskedProcess
from edgebit.bench.machine import load_now, machine_facts
from edgebit.checkpoint.checkpoint import Projection
from edgebit.errors import EngineError
from edgebit.export.onnx_model.contrib import CONTRIB
from edgebit.export.onnx_model.external_data import ExternalData
from edgebit.export.onnx_model.graph import ElementType, Graph
from edgebit.export.onnx_model.projections import Stack
from edgebit.resources import ort_library
from edgebit.synthesize import SHAPES as MODELS

SHAPES, TOKENS, THREADS = "2560x6912,2560x2560,6912x2560", "1,8,64", "1,2"
_SCALE = 0.023  # of the weights; any
_MIB = 1 << 20


@dataclass(slots=True)
class Row:
    """What one way came to, for one shape and thread count."""

    way: str
    shape: str
    threads: int
    seconds: dict[int, list[float]] = field(default_factory=dict)  # by tokens, one a round
    error: float | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", default=SHAPES, help=f"KxN, with commas.  [default: {SHAPES}]")
    parser.add_argument("--tokens", default=TOKENS)
    parser.add_argument("--threads", default=THREADS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--ways", type=ways_of, default=WAYS, help="see bench/onnx_projections.py.  [default: all]")
    parser.add_argument("--optimization", default="all", help="of all, off, late.  [default: all]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tokens, threads = ([int(word) for word in text.split(",")] for text in (options.tokens, options.threads))
    before, rows = load_now(), []
    for shape in options.shapes.split(","):
        rows += measure_shape(
            shape, tokens, threads, options.rounds, ways=options.ways, levels=options.optimization.split(",")
        )
    facts = {**machine_facts(), "load": [before, load_now()]}
    if options.json:
        print(json.dumps({"machine": facts, "rows": [row_json(row) for row in rows]}, indent=1))
    else:
        print(table(rows, tokens, threads, facts))


def ways_of(keys: str) -> list[Way]:
    """Of keys with commas."""
    return [way_of(key) for key in keys.split(",")]


def measure_shape(
    shape: str,
    tokens: Sequence[int],
    threads: Sequence[int],
    rounds: int,
    *,
    ways: Sequence[Way] = WAYS,
    levels: Sequence[str] = ("all",),
) -> list[Row]:
    """All ways, for each level of optimization and thread count."""
    columns, n_rows = map(int, shape.split("x"))
    random = np.random.default_rng(0)
    weights = random.integers(-1, 2, (n_rows, columns), np.int8)
    with tempfile.TemporaryDirectory(prefix="onnx-op-") as name, ExitStack() as stack:
        folder = Path(name)
        for count in tokens:
            np.save(folder / f"x{count}.npy", random.standard_normal((1, count, columns), np.float32))
        contestants = []
        for number, way in enumerate(ways):
            model = write_graph(way, weights, folder / f"way{number}")
            for level in levels:
                name_of = way.name if level == "all" else f"{way.name}, {level}"
                contestants += [(Row(name_of, shape, count), way, model, level) for count in threads]
        processes = {}
        for number, (row, way, model, level) in enumerate(contestants):
            library = ort_library() if way.body == "kernel" else None
            process = stack.enter_context(open_graph(model, row.threads, library, level))
            try:
                check(row, way, process, folder, tokens, weights)
                processes[number] = process
            except EngineError as error:
                row.failure = str(error)
        for turn in range(rounds):
            order = [(turn + place) % len(contestants) for place in range(len(contestants))]
            for number in order:
                if number in processes:
                    for count in tokens:
                        seconds = processes[number].ask("time", x=str(folder / f"x{count}.npy"))["seconds"]
                        contestants[number][0].seconds.setdefault(count, []).append(seconds)
    return [row for row, *_ in contestants]


def write_graph(way: Way, weights: NDArray[np.int8], folder: Path) -> Path:
    """model.onnx with the one product; its weights are external data, as in an exported folder."""
    folder.mkdir()
    stack = Stack((Projection(weights, np.array([_SCALE], np.float32)),), 1)
    with ExternalData(folder / "model.onnx.data") as data:
        graph = Graph(data)
        graph.input("X", ElementType.FLOAT, ["batch", "tokens", stack.columns])
        made = products_of(way, graph, MODELS["2b4t"].conf).ternary("X", stack, "product")
        graph.output(made, ElementType.FLOAT, ["batch", "tokens", stack.rows])
    opsets = finish(way, graph, CONTRIB.opsets)
    path = folder / "model.onnx"
    graph.save(path, opsets=opsets, ir_version=CONTRIB.ir_version, metadata={})
    return path


def check(
    row: Row, way: Way, process: AskedProcess, folder: Path, tokens: Sequence[int], weights: NDArray[np.int8]
) -> None:
    """Error, memory and load of a way that was just opened; EngineError where it cannot run."""
    largest = 0.0
    for count in tokens:
        x, y = folder / f"x{count}.npy", folder / "y.npy"
        process.ask("run", x=str(x), y=str(y))
        wanted = bitnet(np.load(x)[0], weights, float(np.float32(_SCALE)))
        largest = max(largest, float(np.abs(np.load(y)[0] - wanted).max() / np.abs(wanted).max()))
    row.error, row.opened = largest, process.ask("opened")
    if way.body == "kernel" and not row.opened["kernels"]:
        raise EngineError("the library was registered and made no kernel")


def row_json(row: Row) -> dict[str, Any]:
    return {
        "way": row.way, "shape": row.shape, "threads": row.threads, "error": row.error, "failure": row.failure,
        "seconds": {str(count): values for count, values in row.seconds.items()}, **row.opened,
    }  # fmt: skip


def table(rows: Sequence[Row], tokens: Sequence[int], threads: Sequence[int], facts: dict[str, Any]) -> str:
    """Markdown: a table a shape, a row a way."""
    version = next((row.opened["onnxruntime"] for row in rows if row.opened), "?")
    loads = ", ".join(str(load["load_1_min"]) for load in facts["load"])
    lines = [f"{facts['cpu']}, {facts['usable_cores']} cores, ONNX Runtime {version}, load average {loads}", ""]
    times = [f"M = {count}, {thread} thr" for count in tokens for thread in threads]
    heads = ["ms", *times, "error", "anon MiB", "file MiB", "load ms"]
    for shape in dict.fromkeys(row.shape for row in rows):
        columns, n_rows = shape.split("x")
        lines += [f"K = {columns}, N = {n_rows}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        of_shape = [row for row in rows if row.shape == shape]
        for way in dict.fromkeys(row.way for row in of_shape):
            lines.append(f"| {' | '.join(cells([row for row in of_shape if row.way == way], tokens))} |")
        lines.append("")
    return "\n".join(lines)


def cells(rows: Sequence[Row], tokens: Sequence[int]) -> list[str]:
    """Of one way, its thread counts beside each other; memory and load are those of the first."""
    first = rows[0]
    failed = next((row.failure for row in rows if row.failure is not None), None)
    if failed is not None:
        return [first.way, f"failed: {failed}", *[""] * (len(tokens) * len(rows) + 3)]
    opened = first.opened
    return [
        first.way,
        *(spread(row.seconds[count]) for count in tokens for row in rows),
        f"{first.error:.1e}",
        f"{opened['anon_bytes'] / _MIB:.1f}",
        f"{opened['file_bytes'] / _MIB:.1f}",
        f"{opened['load_s'] * 1e3:.0f}",
    ]


def spread(seconds: Sequence[float]) -> str:
    median, least, most = (1e3 * value for value in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{median:.2f} ({least:.2f} to {most:.2f})"


if __name__ == "__main__":
    main()
