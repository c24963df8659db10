"""libedgebit_ort in ONNX Runtime itself: results, threads, releases, and what it says when something is wrong."""

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgebit
from edgebit import resources
from edgebit.bundle.model_format import Norms
from edgebit.errors import OnnxError
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from tests.kernels import ort_cases
from tests.kernels.ort_cases import Case
from tests.kernels.tiny_model import TinyModel, tiny_conf

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

RELEASES = ["1.19.2", "1.20.1", "1.22.0", "1.24.4", "1.28.0", "1.32.0"]
TERNARY, HEAD = (next(case for case in ort_cases.all_cases() if case.name == name) for name in ("t2", "head_some"))


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases as files."""
    folder = tmp_path_factory.mktemp("cases")
    for case in ort_cases.all_cases():
        case.write(folder)
    return folder


def session(ort_library: Path, model: bytes | Path) -> "onnxruntime.InferenceSession":
    """A session with the operators, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(ort_library))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def changed(case: Case, **attributes: object) -> bytes:
    """The case's graph with other attributes (None: without it) or tensors."""
    model = onnx.load_from_string(case.model())
    (node,) = (node for node in model.graph.node if node.domain)
    for name, value in attributes.items():
        tensors = [tensor for tensor in model.graph.initializer if tensor.name == name]
        for tensor in tensors:
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))
        if not tensors:
            kept = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.extend([] if value is None else [onnx.helper.make_attribute(name, value)])
    return model.SerializeToString()


def kernels_made(ort_library: Path) -> int:
    """How many kernels this process has made."""
    count = ctypes.CDLL(str(ort_library)).edgebit_ort_kernels
    count.restype = ctypes.c_uint64
    return int(count())


@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_numpys_bit_for_bit(threads: int, ort_library: Path, cases: Path):
    """On one thread and on two; each session makes its one kernel."""
    before = kernels_made(ort_library)

    played = ort_cases.play(ort_library, cases, threads)

    assert played["wrong"] == []
    assert played["kernels"] == before + len(ort_cases.all_cases())


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_one_library_serves_every_release(
    release: str, ort_library: Path, cases: Path, pypi_wheel: Callable[..., Path], tmp_path: Path
):
    """The same file, the same bits, on two threads."""
    wheel = pypi_wheel(f"onnxruntime=={release}")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path)], check=True)
    program = [sys.executable, str(Path(ort_cases.__file__)), str(ort_library), str(cases), "2"]

    done = subprocess.run(
        program, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"version": release, "kernels": len(ort_cases.all_cases()), "wrong": []}


def test_a_session_without_the_operators_makes_no_kernel(ort_library: Path):
    """So the counter tells a folder that runs its fallback."""
    value = onnx.helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["X"], ["Y"])], "plain", [value], [out])
    opsets = [onnx.helper.make_opsetid("", 18)]
    before = kernels_made(ort_library)

    session(ort_library, onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())

    assert kernels_made(ort_library) == before


@pytest.mark.parametrize(
    ("shape", "inferred"),
    [(["b", "s", 130], ["b", "s", 37]), ([2, 3, 130], [2, 3, 37]), ([None, 130], []), (None, [])],
    ids=["named", "known", "unnamed", "unknown"],
)
def test_shapes_are_inferred(shape: list[str | int] | None, inferred: list[str | int], ort_library: Path):
    """Names and sizes of X go to Y; a dimension without either leaves Y open, for it would become one of size -1."""
    model = onnx.load_from_string(TERNARY.model())
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, shape))

    assert session(ort_library, model.SerializeToString()).get_outputs()[0].shape == inferred


@pytest.mark.parametrize(
    ("case", "change", "says"),
    [
        (TERNARY, {"K": None}, "the attribute K is missing, or is not an integer between 1 and 2147483647"),
        (TERNARY, {"K": 0}, "the attribute K is missing, or is not an integer between 1"),
        (TERNARY, {"N": 1.5}, "the attribute N is missing, or is not an integer between 1"),
        (HEAD, {"K": 65537}, "the attribute K is missing, or is not an integer between 1 and 65536"),
        (TERNARY, {"activation_bits": 7}, "the attribute activation_bits must be 8 or 15"),
        (
            TERNARY,
            {"K": 200},
            "B has the shape [1, 10, 3, 4, 16]; with K = 200 and N = 37 it must be [1, 10, 4, 4, 16]",
        ),
        (TERNARY, {"N": 41}, "with K = 130 and N = 41 it must be [1, 11, 3, 4, 16]"),
        (TERNARY, {"B": np.zeros((37, 33), np.uint8)}, "B has the shape [37, 33]; with K = 130"),
        (
            TERNARY,
            {"B": np.zeros((3, 10, 1, 4, 16), np.uint8)},
            "B has 3 groups of columns, and K = 130 is no multiple of that",
        ),
        (TERNARY, {"B": np.zeros((0, 10, 1, 4, 16), np.uint8)}, "B has 0 groups of columns"),
        (
            TERNARY,
            {"S": np.zeros(36, np.float32)},
            "S has the shape [36]; with K = 130 and N = 37 it must be [1] or [37]",
        ),
        (
            TERNARY,
            {"B": np.zeros((2, 10, 2, 4, 16), np.uint8), "S": np.zeros(37, np.float32)},
            "S has the shape [37]; with K = 130 and N = 37 it must be [2, 37]",
        ),
        (
            HEAD,
            {"B": np.zeros((37, 63), np.uint8)},
            "B has the shape [37, 63]; with K = 63 and N = 37 it must be [37, 64]",
        ),
        (HEAD, {"S": np.zeros(1, np.float32)}, "S has the shape [1]; with K = 63 and N = 37 it must be [37]"),
    ],
    ids=lambda value: value.op if isinstance(value, Case) else "",
)
def test_a_wrong_node_is_refused_when_it_is_loaded(case: Case, change: dict[str, object], says: str, ort_library: Path):
    """The message names operator and node, what is there and what must be."""
    with pytest.raises(Exception, match=re.escape(f"ai.edgebit::{case.op} '{case.name}': ")) as refused:
        session(ort_library, changed(case, **change))

    assert says in str(refused.value)


@pytest.mark.parametrize("case", [TERNARY, HEAD], ids=lambda case: case.op)
@pytest.mark.parametrize("shape", [(2, 5), ()], ids=["columns", "scalar"])
def test_a_wrong_input_is_refused_when_it_is_run(case: Case, shape: tuple[int, ...], ort_library: Path):
    """Its shape is told, and the last dimension that it must have."""
    made = session(ort_library, case.model())
    told = f"X has the shape {list(shape)}; its last dimension must be K = {case.x.shape[-1]}"

    with pytest.raises(Exception, match=re.escape(told)):
        made.run(None, {"X": np.zeros(shape, np.float32)})


def test_weights_that_are_no_constants_are_looked_at_in_each_run(ort_library: Path):
    """They may come from the graph; then a wrong shape is told when it is seen."""
    model = onnx.load_from_string(TERNARY.model())
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.input.append(onnx.helper.make_tensor_value_info("B", onnx.TensorProto.UINT8, None))
    del model.graph.initializer[0]
    made = session(ort_library, model.SerializeToString())

    (y,) = made.run(None, {"X": TERNARY.x, "B": weights})

    assert np.array_equal(y, TERNARY.wanted())
    with pytest.raises(Exception, match=re.escape("with K = 130 and N = 37 it must be [1, 10, 3, 4, 16]")):
        made.run(None, {"X": TERNARY.x, "B": weights[:, :9]})


@pytest.mark.parametrize("name", ["groups", "i15", "t200", "head"])
def test_weights_may_lie_anywhere_in_external_data(name: str, ort_library: Path, tmp_path: Path):
    """Other writers pack tensors one behind the other: B and S then begin at odd bytes of a mapped file."""
    case = next(case for case in ort_cases.all_cases() if case.name == name)
    model, content = onnx.load_from_string(case.model()), bytearray(5)
    for tensor in model.graph.initializer:
        place, raw = len(content) | 1, onnx.numpy_helper.to_array(tensor).tobytes()
        content += bytes(place - len(content)) + raw
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", place), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
    (tmp_path / "weights").write_bytes(content)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    (y,) = session(ort_library, tmp_path / "model.onnx").run(None, {"X": case.x})

    assert np.array_equal(y, case.wanted())


def test_one_session_serves_many_threads_at_once(ort_library: Path):
    """A kernel keeps nothing between calls, so calls side by side do not meet."""
    case = next(case for case in ort_cases.all_cases() if case.name == "wide_many")
    inputs = [case.x * np.float32(factor) for factor in range(1, 9)]
    wanted = [replace(case, x=x).wanted() for x in inputs]
    made = session(ort_library, case.model())

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda x: made.run(None, {"X": x})[0], inputs * 5))

    assert all(np.array_equal(y, wanted[i % 8]) for i, y in enumerate(results))


def test_a_host_that_flushes_denormals_gets_the_same_bits(ort_library: Path):
    """A session's option sets the CPU's float mode on the threads that use it; the kernels have their own."""
    case = replace(TERNARY, scales=np.full(1, 1e-40, np.float32))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.register_custom_ops_library(str(ort_library))

    def flushing() -> np.ndarray:
        made = onnxruntime.InferenceSession(case.model(), options, providers=["CPUExecutionProvider"])
        (y,) = made.run(None, {"X": case.x})
        return y

    with ThreadPoolExecutor(1) as apart:  # the option would outlast the session on this thread
        y = apart.submit(flushing).result()

    wanted = case.wanted()
    assert 0 < np.abs(wanted).max() < np.finfo(np.float32).smallest_normal
    assert np.array_equal(y, wanted)


def test_the_head_has_the_engines_bits(ort_library: Path, native: Library):
    """The engine's final hidden states through Int8MatMul are the engine's logits."""
    tiny = TinyModel(tiny_conf(hidden_size=300, ffn_size=64, n_layers=1, vocab_size=1001, norms=Norms(0)), seed=3)
    codes = np.random.default_rng(5).integers(-127, 128, (1001, 300)).astype(np.int8)
    scales = np.random.default_rng(6).uniform(0.001, 0.02, 1001).astype("<f4")
    tiny.set_head(codes, scales=scales)
    prompts = list(range(20)), list(range(20)), [True] * 20  # of one token each
    with Model.from_bytes(native, tiny.to_bytes()) as model:
        with Engine(model, ctx_len=4, sequences=20) as engine:
            states = np.stack([np.array(state) for state in engine.eval_states(*prompts)])
        with Engine(model, ctx_len=4, sequences=20) as engine:
            engine.eval_batch(*prompts, n_best=0)
            logits = np.stack([np.array(engine.logits(row)) for row in range(20)])
    head = replace(HEAD, weights=codes, scales=scales, x=states)

    (y,) = session(ort_library, head.model()).run(None, {"X": states})

    assert np.array_equal(y, logits)


def test_version_and_isa_level_are_told(ort_library: Path, native: Library):
    """Those of edgebit, and the level that the engine would use."""
    loaded = ctypes.CDLL(str(ort_library))
    for function in (loaded.edgebit_ort_version, loaded.edgebit_ort_isa):
        function.restype = ctypes.c_char_p

    assert loaded.edgebit_ort_version().decode() == edgebit.__version__
    assert loaded.edgebit_ort_isa().decode() in native.isa_names


def test_it_imports_and_exports_no_more_than_it_should(ort_library: Path, require_tool: Callable[[str], str]):
    """No libc, none of the engine's functions."""
    listed = subprocess.run([require_tool("nm"), "-D", str(ort_library)], capture_output=True, text=True, check=True)

    names = {tuple(line.split()[-2:]) for line in listed.stdout.splitlines()}

    exported = ("RegisterCustomOps", "edgebit_ort_isa", "edgebit_ort_kernels", "edgebit_ort_version")
    assert names == {("T", name) for name in exported}


def test_the_environment_names_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """EDGEBIT_ORT_LIBRARY goes first, and is told where it names nothing."""
    other = tmp_path / "other.so"
    monkeypatch.setenv("EDGEBIT_ORT_LIBRARY", str(other))

    with pytest.raises(OnnxError, match=r"EDGEBIT_ORT_LIBRARY names .*other\.so, and there is no such file"):
        resources.ort_library()
    other.touch()
    assert resources.ort_library() == other
