"""`edgebit export onnx --stock`: ONNX Runtime's own operators alone, and what it says of how near they come."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from export.onnx_run import NativeRun, OnnxRun, open_session

from edgebit.cli import cli
from edgebit.cli import export as export_command
from edgebit.errors import OnnxError
from edgebit.export.onnx_model.packing import pack_rows, ternary_block

onnx = pytest.importorskip("onnx")

INT8, INT15 = "bitnet-packed", "bonsai-f16"


@pytest.mark.parametrize("ops", ["contrib", "standard"])
@pytest.mark.parametrize("name", [INT8, INT15, "bitnet-packed-odd-untied", "legacy-1bitllm-f16-head100"])
@pytest.mark.parametrize("level", [0, 99])
def test_answers_are_near_the_engines(name, ops, level, native, quick_model, exported):
    """Off by a twentieth of the logits' deviation in the mean at the most, and never zero."""
    session = open_session(exported(name, ops=ops, stock=True), level=level)
    with NativeRun(native, quick_model(name)) as engine:
        tokens = np.random.default_rng(1).integers(0, engine.model.info.vocab_size, 40)
        wanted = engine.step(tokens)
    run = OnnxRun(session)
    found = np.concatenate([run.step(tokens[:30])[0], run.step(tokens[30:])[0]])
    assert np.abs(found - wanted).mean() < 0.06 * wanted.std()
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.8


@pytest.mark.parametrize("ops", ["contrib", "standard"])
def test_there_is_no_operator_of_ours(ops, exported):
    """No domain, function or library; block scales are constants, from which int8 products are no zeros."""
    folder = exported(INT15, ops=ops, stock=True)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert "ai.edgebit" not in {each.domain for each in model.opset_import} and not model.functions
    constants = {tensor.name for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert products and all(node.input[2] in constants for node in products)
    assert {attribute.i for node in products for attribute in node.attribute if attribute.name == "bits"} == {2, 8}
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)


def test_weights_of_two_bits():
    """Four columns a byte, the first in the lowest bits, as weight + 2; filled up with weight 0."""
    weights = np.array([[-1, 0, 1, 1, 0]], np.int8)
    assert pack_rows(weights, 1, 8).tolist() == [[1 | 2 << 2 | 3 << 4 | 3 << 6, 2 | 2 << 2 | 2 << 4 | 2 << 6]]
    assert [ternary_block(columns) for columns in (2560, 192, 64, 40)] == [128, 64, 64, 64]


def export(reference_checkpoint, tmp_path, *options: str, name: str = INT8):
    arguments = ["export", "onnx", str(reference_checkpoint(name)), "--out", str(tmp_path / "out"), "--stock", *options]
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


@pytest.mark.parametrize("name", [INT8, INT15])
def test_the_distance_is_measured_and_told(name, native, reference_checkpoint, tmp_path):
    """On the given text, or on random tokens where the model has no tokenizer."""
    text = tmp_path / "text.txt"
    text.write_text("The tide comes in twice a day.\n" * 8)
    done = export(reference_checkpoint, tmp_path, "--json", "--text", str(text), name=name)
    said = json.loads(done.stdout)
    assert said["fallback"] is None and said["library"] is None
    distance = said["distance"]
    assert distance["text"] == ("text.txt" if name == INT8 else "random tokens: the model has no tokenizer")
    assert distance["tokens"] == 128 and distance["runtime"].startswith("onnxruntime ")
    assert 0 < distance["max_difference"] < 3 and 0 < distance["kl_mean"] < 0.1
    assert 0.7 < distance["same_greedy"] <= 1
    again = export(reference_checkpoint, tmp_path, "--force", "--text", str(text), name=name)
    assert f"KL {distance['kl_mean']:.2g} nats" in again.stdout


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", (), r"16 tokens or more, and text\.txt has [01], .*Give a longer --text"),
        ("The tide", (), r"16 tokens or more, and text\.txt has \d, .*Give a longer --text"),
        ("The tide comes in twice a day.\n" * 8, ("--ctx", "8"), "the context has 8. Export with a longer --ctx"),
    ],
)
def test_too_few_tokens_tell_no_distance(text, options, words, native, reference_checkpoint, tmp_path):
    """A share over one token is 0 or 100 percent, whatever the folder computes; the folder is written."""
    (tmp_path / "text.txt").write_text(text)
    done = export(reference_checkpoint, tmp_path, "--text", str(tmp_path / "text.txt"), *options)
    assert done.exit_code == 0 and re.search(f"distance .* was not measured: .*{words}", done.stdout)
    assert "%" not in done.stdout and (tmp_path / "out" / "model.onnx").is_file()


def test_what_keeps_it_from_being_measured_is_told(reference_checkpoint, tmp_path, monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise OnnxError("onnxruntime is not installed")

    monkeypatch.setattr(export_command, "measure_distance", missing)
    done = export(reference_checkpoint, tmp_path)
    assert done.exit_code == 0
    assert "distance from the native engine was not measured: onnxruntime is not installed" in done.stdout


@pytest.mark.parametrize("options", [("--fallback", "exact"), ("--target", "rpi"), ("--builder", "zig")])
def test_what_stock_has_no_use_for_is_refused(options, reference_checkpoint, tmp_path):
    done = CliRunner().invoke(
        cli, ["export", "onnx", str(reference_checkpoint(INT8)), "--out", str(tmp_path / "out"), "--stock", *options]
    )
    assert done.exit_code == 2 and re.search(f"Leave .*{options[0]}.* out", done.stderr)


def test_a_text_without_stock_is_refused(reference_checkpoint, tmp_path):
    arguments = ["export", "onnx", str(reference_checkpoint(INT8)), "--out", str(tmp_path / "out"), "--text", __file__]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2 and "--text goes with --stock" in done.stderr
