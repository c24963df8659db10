"""`edgebit run` with other engines than ours, as a user calls it."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def edgebit(*arguments, **environment):
    command = [sys.executable, "-m", "edgebit", *map(str, arguments)]
    known = {name: value for name, value in os.environ.items() if name != "EDGEBIT_ORT_LIBRARY"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**known, **environment}
    )


@pytest.fixture
def model(reference_model):
    return reference_model("bitnet-packed")


@pytest.fixture
def folder(exported, model, ort_library, tmp_path):
    """With the library inside, as `edgebit export onnx` leaves it."""
    path = shutil.copytree(exported(model), tmp_path / "exported")
    shutil.copy(ort_library, path / "libedgebit_ort.so")
    return path


@pytest.mark.parametrize("sampling", [("--temperature", 0), ("--temperature", 1, "--top-k", 40, "--seed", 3)])
def test_both_engines_give_the_same_answer(model, folder, sampling):
    """In the model's template, read from one command line."""
    options = ("Why is the sky blue?", "-n", 64, "--json", *sampling)
    native = json.loads(edgebit("run", model, *options, "--kv", "f32").stdout)
    onnx = json.loads(edgebit("run", folder, *options).stdout)
    assert (native["engine"], onnx["engine"], onnx["kernel"]) == ("native", "onnx", "bound")
    assert len(onnx["tokens"]) == 64
    for same in ("tokens", "text", "prompt_tokens", "done_reason", "temperature"):
        assert onnx[same] == native[same]
    assert onnx["library"] == str(folder / "libedgebit_ort.so")
    for figure in ("load_s", "prefill_tok_s", "decode_tok_s", "peak_rss_mib", "weights_mib", "threads"):
        assert onnx[figure] > 0 and native[figure] > 0


def test_the_fallback_is_said_on_standard_error(folder):
    """And the answer goes on; --stats has it too."""
    done = edgebit("run", folder, "hello", "-n", 4, "--stats", EDGEBIT_ORT_LIBRARY="none")
    assert done.returncode == 0, done.stderr
    assert "the fallback 'compact' runs, not the fast kernel" in done.stderr
    assert "kernel fallback, fallback compact, onnxruntime" in done.stderr and "tok/s" in done.stderr
    bound = edgebit("run", folder, "hello", "-n", 4, "--stats")
    assert "fallback" not in bound.stderr and "kernel bound" in bound.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--speculate", 0), "--speculate belongs to the engine native, and onnx runs this"),
        (("--kv", "f32"), "--kv belongs to the engine native"),
        (("--prefix-cache", "cache"), "--prefix-cache belongs to the engine native"),
    ],
)
def test_options_of_the_native_engine_are_refused(folder, options, words):
    done = edgebit("run", folder, "hello", *options)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


def test_the_library_is_no_option_of_the_native_engine(model):
    done = edgebit("run", model, "hello", "--library", "none")
    assert done.returncode == 2
    assert "--library belongs to the engine onnx, and native runs this" in " ".join(done.stderr.split())


def test_a_bundle_has_to_be_exported_first(model):
    done = edgebit("run", model, "hello", "--engine", "onnx")
    assert (done.returncode, done.stdout) == (9, "")
    assert f"edgebit export onnx {model}" in done.stderr


def test_damage_is_one_clear_line(folder):
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-100])
    done = edgebit("run", folder, "hello")
    assert (done.returncode, done.stdout) == (20, "")
    assert "model.onnx.data ends at byte" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("ops", ["contrib", "standard"])
@pytest.mark.parametrize("stock", [False, True])
def test_every_form_of_a_folder_answers(model, exported, ort_library, ops, stock):
    """Those with our operators as the native engine does; without any, there is no kernel of ours to bind."""
    options = ("Why is the sky blue?", "-n", 16, "--json", "--temperature", 0)
    library = () if stock else ("--library", ort_library)
    done = edgebit("run", exported(model, ops=ops, stock=stock), *options, *library)
    found = json.loads(done.stdout)
    assert (found["engine"], found["kernel"], found["fallback"]) == ("onnx", "none" if stock else "bound", None)
    assert len(found["tokens"]) == 16 and done.stderr == ""
    if not stock:
        assert found["tokens"] == json.loads(edgebit("run", model, *options, "--kv", "f32").stdout)["tokens"]


@pytest.mark.parametrize("name", ["edgebit.prmt", "edgebit.tokn"])
def test_a_text_file_that_was_lost_on_the_way_is_named(folder, name):
    (folder / name).unlink()
    done = edgebit("run", folder, "hello")
    assert (done.returncode, done.stdout) == (20, "")
    assert f"{folder / name} cannot be read" in done.stderr and "Traceback" not in done.stderr


def test_a_tokenizer_cut_short_is_named_where_there_are_no_sums(hand_made):
    """Folders of before sums have only the tokenizer's own faults to tell by."""
    path = hand_made(properties={"edgebit.files_sha256": None}) / "edgebit.tokn"
    path.write_bytes(path.read_bytes()[:-64])
    done = edgebit("run", path.parent, "hello", EDGEBIT_ORT_LIBRARY="none")
    assert done.returncode == 20 and f"{path}: section TOKN" in done.stderr


def test_a_system_message_wants_a_chat_template(hand_made):
    folder = hand_made(program=None)
    done = edgebit("run", folder, "hello", "--system", "Be kind.")
    assert (done.returncode, done.stdout) == (9, "")
    assert "has no chat template, which --system belongs to" in done.stderr


@pytest.mark.parametrize("kind", ["model", "folder"])
def test_ctrl_c_stops_cleanly(kind, request):
    """SIGINT ends the answer of either engine with exit code 130 and no traceback."""
    path = str(request.getfixturevalue(kind))
    command = [sys.executable, "-m", "edgebit", "run", path, "hello", "--temperature", "2", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # it answers
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


@pytest.mark.reference
def test_a_checkpoint_runs_with_transformers(model, reference_checkpoint):
    """The third engine, picked by what it is given; its first tokens are ours."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    options = ("hello", "-n", 8, "--temperature", 0, "--json")
    native = json.loads(edgebit("run", model, *options, "--kv", "f32").stdout)
    theirs = json.loads(edgebit("run", reference_checkpoint("bitnet-packed"), *options).stdout)
    assert (theirs["engine"], theirs["text"]) == ("transformers", native["text"])
