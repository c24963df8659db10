"""ONNX Runtime on an exported folder, in the bench's report: alone, and beside our own engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

pytest.importorskip("onnxruntime", reason="ONNX Runtime is what is measured (pip install onnxruntime)")
pytest.importorskip("onnx", reason="a folder is exported to measure (pip install onnx)")

from edgebit.bench.onnx_peer import OnnxPeer, kv_bytes_per_token, model_info
from edgebit.cli import cli
from edgebit.errors import OnnxError, PeerError
from edgebit.export.to_onnx import export_onnx
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.resources import ort_library
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "bench.json").read_text())
MODEL = "bitnet-packed"
QUICK = ["--threads", "1", "--rounds", "1", "--prefill", "4,16", "--decode", "4", "--context", "0,24", "--json"]


@pytest.fixture(scope="module")
def exported(native, reference_checkpoint, tmp_path_factory) -> Path:
    """The folder, with our operators."""
    out = tmp_path_factory.mktemp("exported") / "model-onnx"
    export_onnx(reference_checkpoint(MODEL), out, library=ort_library())
    return out


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgebit", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def report_of(*arguments: object) -> dict:
    done = bench(*arguments, *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    Draft202012Validator(SCHEMA).validate(report)
    return report


def test_a_folder_alone_has_all_its_figures(exported):
    """The sizes of the model come from the folder; no other engine is in the report."""
    report = report_of("--engine", "onnx", exported)

    (engine,) = report["engines"]
    assert engine["name"] == "onnx" and engine["said"]["kernel"] == "bound"
    assert set(engine["prefill"]) == {"4", "16"} and set(engine["decode"]) == {"0", "24"}
    assert all(len(figure["samples"]) == 1 for figure in (*engine["prefill"].values(), *engine["decode"].values()))
    assert {"start_s", "first_token_s", "engine_open_s"} <= engine["start"].keys()
    assert engine["peak_rss_bytes"].keys() == {"prefill", "context"}
    assert report["ratios"] == [] and report["failures"] == []
    assert (report["model"]["golden_probes"], report["settings"]["kv"]) == (0, "f32")


def test_it_stands_beside_our_own_engine(exported, reference_model):
    """Ratios are those of the same rounds; without the library its fallback is measured, and the report says so."""
    report = report_of("--engine", "onnx", exported, "--beside", reference_model(MODEL), "--library", "none")

    assert [engine["name"] for engine in report["engines"]] == ["edgebit", "onnx"]
    assert report["engines"][1]["said"]["kernel"] == "fallback" and report["engines"][1]["said"]["note"]
    assert {ratio["figure"] for ratio in report["ratios"]} >= {"prefill/4", "decode/0", "decode/24"}
    assert report["model"]["golden_probes"] > 0


def test_the_table_names_the_runtime(exported):
    done = bench("--engine", "onnx", exported, "--threads", "1", "--rounds", "1", "--prefill", "4", "--context", "0")

    assert done.returncode == 0
    assert "onnx: ONNX Runtime" in done.stdout and "edgebit's operators" in done.stdout
    assert "golden probes" not in done.stdout


def test_the_folder_tells_the_sizes_of_its_model(exported, reference_model):
    """As the model file does; of the embedding a step reads a row."""
    info = model_info(OnnxFolder.open(exported))
    with Model.open(Library.load(), reference_model(MODEL)) as model:
        for name in ("hidden_size", "ffn_size", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size"):
            assert info[name] == getattr(model.info, name)
        embedding = 2 * info["vocab_size"] * info["hidden_size"]
        assert 0 < info["bytes_per_token"] < info["weight_bytes"] - embedding
    assert kv_bytes_per_token(info) == 8 * info["n_layers"] * info["n_kv_heads"] * info["head_dim"]


def test_a_folder_that_cannot_run_is_a_failure_of_its_own(exported, tmp_path):
    """In its own words, for a report whose other engines go on."""
    with pytest.raises(PeerError, match=r"no-library\.so"):
        OnnxPeer(exported, str(tmp_path / "no-library.so")).measure(1, [4], 4, [0])
    with pytest.raises(OnnxError, match=r"no model\.onnx"):
        OnnxFolder.open(tmp_path)


def test_a_folder_that_cannot_run_is_told_before_the_rounds(exported, tmp_path, monkeypatch):
    """With ONNX Runtime's exit code; nothing is measured for a table without figures."""
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = bench("--engine", "onnx", exported, "--rounds", "1000", "--out", tmp_path / "bench.json")

    assert (done.returncode, done.stdout) == (20, "")
    assert "onnxruntime cannot be loaded: not here" in done.stderr and "pip install 'edgebit[onnx]'" in done.stderr
    assert not (tmp_path / "bench.json").exists()


def test_a_bad_library_is_told_before_the_rounds(exported, tmp_path):
    """Whatever is wrong with it: no half-empty table, and the exit code of the folder's other faults."""
    garbage, foreign = tmp_path / "garbage.so", tmp_path / "foreign.so"
    garbage.write_bytes(b"garbage")
    data = bytearray(ort_library().read_bytes())
    data[18:20] = b"\xf3\x00"  # e_machine: RISC-V
    foreign.write_bytes(data)
    for library, words in (
        (garbage, "is not an ELF file"),
        (foreign, "this machine is"),
        (tmp_path, "that is a folder"),
        (tmp_path / "none.so", "there is no such file"),
        ("", "--library names no file"),
    ):
        done = bench("--engine", "onnx", exported, "--rounds", "1000", "--library", library)
        assert (done.returncode, done.stdout) == (20, "") and words in done.stderr, (library, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "onnx", "--shape", "2b4t"], "give it as MODEL"),
        (["MODEL", "--beside", "MODEL"], "--beside belongs to --engine onnx"),
        (["MODEL", "--library", "none"], "--library belongs to --engine onnx"),
        (["--engine", "onnx", "MODEL", "--isa", "scalar"], "--isa belongs to our own engine"),
        (["--engine", "onnx", "MODEL", "--sequences", "2"], "--sequences belongs to our own engine"),
        (["--engine", "onnx", "MODEL", "--kv", "int8"], "--kv belongs to our own engine"),
    ],
)
def test_options_of_another_engine_are_refused(arguments, words, exported):
    result = CliRunner().invoke(cli, ["bench", *(str(exported) if word == "MODEL" else word for word in arguments)])

    assert result.exit_code == 2 and words in result.output
