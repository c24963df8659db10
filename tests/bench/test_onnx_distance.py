"""bench/onnx_distance.py: what it counts, and a run of the whole program on a small model."""

import importlib
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the graphs (pip install onnxruntime)")
pytest.importorskip("onnx", reason="the graphs are written with it (pip install onnx)")

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def program(monkeypatch):
    """The module, of a folder that is no package."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("onnx_distance")


def test_what_is_counted(program):
    """Tokens and their sequences by a limit; sequences with an int8 step apart from the others; greedy margins."""
    row = program.Distance(
        "model", "contrib", "kernel", differences=[[0.0, 2e-4, 1e-3], [0.5, 0.0, 2e-4], [0.0, 0.0, 0.0]],
        means=[0.1, 0.2, 0.3], deviations=[2.0, 2.5, 3.0], same_best=8, greedy=12, margins=[0.25, 0.125],
    )  # fmt: skip
    assert row.off(1e-4) == (4, 2) and row.off(0.01) == (1, 1)
    counts = ["4 (2)", "1 (1)", "1 of 3", "1.0e-03", "0.5", "0.2", "2.0 to 3.0", "8 of 9", "2 of 12 (0.125, 0.250)"]
    assert program.cells(row, [1e-4, 0.01]) == ["model", "contrib", "kernel", *counts]
    other = program.Distance("other", "contrib", "kernel", [[1.0]], [0.4], [2.0], 1, 3, [0.5])
    (both,) = program.totals([row, other])
    assert both.off(0.01) == (2, 2) and (both.same_best, both.greedy) == (9, 15) and both.margins == [0.25, 0.125, 0.5]
    assert row.off(0.01) == (1, 1)


def test_each_form_is_measured(program, native, reference_model, monkeypatch, capsys):
    """The kernel and the exact body compute what the engine does, MatMulNBits something near it, and by its level."""
    small = ["--sequences", "2", "--tokens", "9-12", "--pieces", "0,5", "--greedy", "4", "--json"]

    def rows(*arguments: str) -> dict:
        command = ["onnx_distance.py", str(reference_model("legacy-1bitllm-f32")), *small, *arguments]
        monkeypatch.setattr(sys, "argv", command)
        program.main()
        return {(row["ops"], row["way"]): row for row in json.loads(capsys.readouterr().out)["rows"]}

    found = rows("--ops", "contrib,standard", "--ways", "kernel,exact,stock")
    assert len(found) == 6
    for (ops, way), row in found.items():
        tokens = [len(sequence) for sequence in row["differences"]]
        assert len(tokens) == 2 and all(9 <= count <= 12 for count in tokens) and row["greedy"] == 8
        assert (sum(row["means"]) / 2 < 0.005) == (way != "stock"), (ops, way)
        if way != "stock":
            assert row["same_best"] >= sum(tokens) - 1 and max(row["margins"], default=0) < 0.25
    floats = rows("--ways", "stock", "--accuracy", "0")
    assert floats["contrib", "stock"]["differences"] != found["contrib", "stock"]["differences"]
