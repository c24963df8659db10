"""What is said where ONNX Runtime is missing, too old, or does not take the graph."""

import os
import subprocess
import sys
import zipfile

import pytest

from edgebit.doctor.finding import of_error
from edgebit.errors import OnnxError
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.ort_faults import explain, version_numbers
from edgebit.onnx_engine.session import OnnxSession, import_onnxruntime

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def refusal(path, **options):
    with pytest.raises(OnnxError) as refused:
        OnnxSession.open(OnnxFolder.open(path), threads=1, **options)
    return str(refused.value)


@pytest.mark.parametrize("package", ["onnxruntime", "numpy"])
def test_a_missing_package_is_named_with_what_installs_it(hand_made, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    said = refusal(hand_made())
    assert f"{package} is not installed" in said and "pip install 'edgebit[onnx]'" in said


def test_a_package_that_cannot_be_loaded_is_not_called_missing(hand_made, monkeypatch, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.syspath_prepend(tmp_path)
    assert "onnxruntime cannot be loaded: libgomp.so.1" in refusal(hand_made())


def test_no_library_and_no_fallback_is_an_error(hand_made):
    said = refusal(hand_made(fallback="none"))
    assert "needs libedgebit_ort.so" in said and "--fallback compact" in said


@pytest.mark.parametrize(
    ("form", "words"),
    [({"ir_version": 99}, "IR 99.*Unsupported model IR version: 99"), ({"opset": 99}, "ai.onnx 99.*Opset 99")],
)
def test_a_graph_of_the_future_needs_a_newer_runtime(hand_made, form, words):
    with pytest.raises(OnnxError, match=f"ONNX Runtime .* is too old for .*{words}.*pip install -U onnxruntime"):
        OnnxSession.open(OnnxFolder.open(hand_made(**form)), threads=1)


def test_an_operator_that_nobody_has_is_named(damaged):
    path = damaged("model.onnx", lambda content: content.replace(b"ReduceSum", b"ReduceSun"))
    assert "ReduceSun" in refusal(path)


def test_a_weight_of_another_shape_is_said_in_one_line(damaged):
    """The file is well formed, and no graph: where in ONNX Runtime's sources it noticed is nobody's concern."""
    said = refusal(damaged("model.onnx", lambda content: content.replace(b"\x0a\x02q0", b"\x0a\x02q9")))
    assert "model.onnx" in said and "\n" not in said
    assert "onnxruntime_src" not in said and "[ONNXRuntimeError]" not in said


def test_weights_that_are_a_link_to_elsewhere(hand_made, tmp_path):
    """ONNX Runtime takes none from outside the folder; what lies there may be sound."""
    path = hand_made()
    (path / "model.onnx.data").rename(tmp_path / "weights")
    (path / "model.onnx.data").symlink_to(tmp_path / "weights")
    folder = OnnxFolder.open(path)
    assert folder.outside_weights() == [path / "model.onnx.data"]
    if version_numbers(import_onnxruntime().__version__) < (1, 24):
        pytest.skip("this ONNX Runtime follows links to everywhere")
    said = refusal(path)
    assert "takes no weights from outside the folder. Put the file itself in its place: cp --remove-destination" in said
    assert f"model.onnx.data is a link to {tmp_path / 'weights'}" in said and "damaged" not in said


def test_what_onnx_runtime_says_stays_in_one_sentence(hand_made):
    """The doctor takes the first sentence for the fault, and the rest for the mend."""
    error = explain(RuntimeError("Node 'a' failed. Reason: no kernel. "), OnnxFolder.open(hand_made()), "1.32.0")
    finding = of_error("group", "graph", error)
    assert finding.detail.endswith("cannot run it: Node 'a' failed; Reason: no kernel")
    assert finding.mend == "Export the model again"


TOO_LITTLE = """
import resource, sys
from pathlib import Path
from edgebit.errors import OnnxError
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
session = OnnxSession.open(OnnxFolder.open(Path(sys.argv[1])), threads=1)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
try:
    Decoder(session)
except OnnxError as error:
    print(error)
"""


def test_too_little_memory_for_the_context_is_said(hand_made):
    """With the option that asks for less."""
    conf = '{"n_layers": 2, "n_kv_heads": 2, "head_dim": 16, "vocab_size": 512, "context_max": 2000000}'
    path = hand_made(properties={"edgebit.conf": conf})
    done = subprocess.run([sys.executable, "-c", TOO_LITTLE, str(path)], capture_output=True, text=True, check=True)
    assert "no memory for a KV cache of 2000000 tokens" in done.stdout and "--ctx" in done.stdout


@pytest.mark.parametrize("said", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_too_little_memory_for_the_weights_is_said(said, hand_made):
    """As ONNX Runtime says it; under a real limit it may find no memory for its own stack, and faults."""
    folder = OnnxFolder.open(hand_made())
    words = str(explain(said, folder, "1.32.0"))
    assert f"{folder.path}: there is not enough memory to run it" in words and "--ctx" in words


OLD = """
import sys
from pathlib import Path
import onnxruntime
from edgebit.errors import OnnxError
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
print(onnxruntime.__version__)
for path in sys.argv[2:]:
    try:
        session = OnnxSession.open(OnnxFolder.open(Path(path)), threads=1, library=sys.argv[1])
        pieces, whole = (Decoder(session, batch_len=n) for n in (3, 64))
        tokens = [500, *range(10, 30)]
        pieces.append(tokens[:11])
        pieces.append(tokens[11:])
        print(session.binding.state, abs(pieces.append([7]) - whole.append([*tokens, 7])).max() < 1e-4)
    except OnnxError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "two_bits", "standard"), [("1.19.2", False, False), ("1.22.0", False, False), ("1.24.4", True, True)]
)
def test_runtimes_of_the_past(
    pypi_wheel, exported, hand_made, reference_model, ort_library, tmp_path, version, two_bits, standard
):
    """What each runs is right, pieces of a prompt behind others too, and what it cannot is said before it fails."""
    with zipfile.ZipFile(pypi_wheel(f"onnxruntime=={version}")) as wheel:
        wheel.extractall(tmp_path)
    compact, exact = (exported(reference_model("bitnet-packed"), fallback=each) for each in ("compact", "exact"))
    standard_folder = hand_made(ops="standard")

    def lines(library, *folders):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
        command = [sys.executable, "-c", OLD, str(library), *map(str, folders)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found, *rest = done.stdout.splitlines()
        assert found == version
        return rest

    assert lines(ort_library, compact, exact) == ["bound True"] * 2
    said_compact, said_exact, said_standard = lines("none", compact, exact, standard_folder)
    assert said_exact == "fallback True"
    if two_bits:
        assert said_compact == "fallback True"
    else:
        assert f"ONNX Runtime {version} is too old" in said_compact and "products of 2 bits need 1.24" in said_compact
    if standard:
        assert said_standard == "fallback True"
    else:
        assert "its operators (standard) need 1.24" in said_standard and "--ops contrib" in said_standard


def test_onnx_runtime_leaves_no_file_of_its_telemetry(hand_made, tmp_path):
    """From 1.29 on it keeps ids and a database in the user's folders, and sends them."""
    program = (
        "import sys; from pathlib import Path; from edgebit.onnx_engine.folder import OnnxFolder;"
        "from edgebit.onnx_engine.session import OnnxSession;"
        "OnnxSession.open(OnnxFolder.open(Path(sys.argv[1])), threads=1, library='none')"
    )
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    asked = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    subprocess.run([sys.executable, "-c", program, str(hand_made())], check=True, env={**asked, **places})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
