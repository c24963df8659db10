"""The ways of bench/onnx_*.py: each computes the product that it is measured with, and the tables have all of them."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the graphs (pip install onnxruntime)")
pytest.importorskip("onnx", reason="the graphs are written with it (pip install onnx)")

from edgebit.onnx_engine.decoder import Decoder  # noqa: E402
from edgebit.onnx_engine.folder import OnnxFolder  # noqa: E402
from edgebit.onnx_engine.session import OnnxSession  # noqa: E402
from edgebit.resources import ort_library  # noqa: E402

BENCH = Path(__file__).resolve().parents[2] / "bench"
KEYS = [
    *("kernel", "compact", "exact", "dynamic", "float32"),
    *(f"nbits{bits}-{size}" for bits in (2, 4, 8) for size in (32, 64, 128)),
]
EXACT = {"kernel", "exact"}


@pytest.fixture(scope="module")
def bench():
    """Gives a module of the folder bench/, which is no package."""
    sys.path.insert(0, str(BENCH))
    yield importlib.import_module
    sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def ways(bench):
    """By their keys."""
    return {way.key: way for way in bench("onnx_projections").WAYS}


def test_all_ways_are_known(ways):
    assert sorted(ways) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_way_computes_the_product(key, ways, bench, native, tmp_path):
    """Ours exactly, by BitNet's arithmetic; the others as near as another rounding of activations to int8 is."""
    random = np.random.default_rng(5)
    weights = random.integers(-1, 2, (24, 256), np.int8)
    x = random.standard_normal((1, 3, 256), np.float32)
    model = bench("onnx_op").write_graph(ways[key], weights, tmp_path / "graph")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if key == "kernel":
        options.register_custom_ops_library(str(ort_library()))
    (found,) = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"X": x})

    wanted = bench("onnx_projections").bitnet(x[0], weights, float(np.float32(bench("onnx_op")._SCALE)))
    error = np.abs(found[0] - wanted).max() / np.abs(wanted).max()
    assert error < (1e-6 if key in EXACT else 0.05), error
    assert key in EXACT or error > 1e-5  # what makes it another way


@pytest.mark.parametrize("key", ["nbits4-32", "dynamic", "float32"])
def test_a_decoder_with_other_projections_is_the_same_model(key, ways, bench, reference_model, tmp_path):
    """Its logits are near those of our operator."""
    for each in ("kernel", key):
        bench("onnx_decoder").write_folder(ways[each], reference_model("bitnet-packed"), tmp_path / each)
    ours, found = logits(tmp_path / "kernel", str(ort_library())), logits(tmp_path / key, "none")
    assert np.abs(found - ours).mean() < 0.1 * ours.std()


def logits(folder: Path, library: str) -> np.ndarray:
    session = OnnxSession.open(OnnxFolder.open(folder), threads=1, library=library)
    return Decoder(session, ctx_len=32).append(list(range(5, 25))).copy()


def test_a_table_of_the_single_product_has_a_row_each(ways, bench, native):
    """A way that fails has its reason in its row, and the others their figures."""
    module = bench("onnx_op")
    broken = bench("onnx_projections").Way(
        "broken", "broken", write=lambda graph, x, stack, name: graph.node("MatMul", [x, x], name)
    )
    rows = module.measure_shape("256x64", [1, 3], [1], rounds=2, ways=[ways["kernel"], broken, ways["nbits2-128"]])
    lines = module.table(
        rows, [1, 3], [1], {"cpu": "a CPU", "usable_cores": 1, "load": [{"load_1_min": 0.0}]}
    ).splitlines()

    ours, failed, peer = rows
    assert ours.failure is None and ours.error < 1e-6 and ours.opened["kernels"] == 1
    assert peer.opened["kernels"] == 0 and peer.error > 1e-5
    assert {count: len(values) for count, values in ours.seconds.items()} == {1: 2, 3: 2}
    assert failed.failure and failed.seconds == {}
    assert [line.split(" | ")[0].strip("| ") for line in lines[6:9]] == [ways["kernel"].name, "broken", peer.way]
    assert "failed: " in lines[7]


def test_a_table_of_the_decoder_has_a_row_each(ways, bench, reference_model, monkeypatch, capsys):
    """Our own engine twice, with all logits and greedy; a run of the whole program on a small model."""
    module = bench("onnx_decoder")
    monkeypatch.setattr(module, "model_of", lambda shape, layers: reference_model("bitnet-packed"))
    arguments = ["--ways", "kernel,float32", "--threads", "1", "--rounds", "1", "--prefill", "8", "--decode", "4"]
    monkeypatch.setattr(sys, "argv", ["onnx_decoder.py", *arguments])
    module.main()

    names = [line.split(" | ")[0].strip("| ") for line in capsys.readouterr().out.splitlines()[4:]]
    own = ["edgebit's own engine, all logits", "the same, greedy"]
    assert names == [*own, ways["kernel"].name, ways["float32"].name]
