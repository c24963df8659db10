"""`edgebit logits` writes what the engine computes, from a model file or straight from a checkpoint."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgebit.export.to_gguf import export_gguf


def edgebit(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgebit", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def ids_file(tmp_path):
    """200 ids: more than one chunk of logits rows."""

    def write(ids: object):
        path = tmp_path / "ids.json"
        path.write_text(json.dumps(ids))
        return path

    return write


def test_all_positions_of_file_and_checkpoint_are_the_same(reference_model, reference_checkpoint, ids_file, tmp_path):
    """float32 [tokens, vocabulary], close to the reference; --last is its last row."""
    folder = reference_checkpoint("bitnet-packed-odd-untied")
    reference = load_file(folder / "reference.safetensors")
    path = ids_file(reference["long_ids"].tolist())
    model = reference_model("bitnet-packed-odd-untied")
    for source, name, extra in ((model, "a", ()), (folder, "b", ()), (model, "c", ("--last",))):
        done = edgebit("logits", source, "--ids-file", path, "--out", tmp_path / f"{name}.npy", *extra)
        assert done.returncode == 0, done.stderr
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert (a.shape, a.dtype, c.shape) == ((200, 300), np.float32, (1, 300))
    assert np.array_equal(a, b)
    assert np.array_equal(a[-1:], c)
    assert (a.argmax(axis=1) == reference["long_argmax_f32"]).mean() >= 0.95


def test_a_gguf_file_is_a_checkpoint_too(reference_checkpoint, ids_file, tmp_path):
    """In I2_S, whose dialect is said; on what is none, it is refused."""
    model = export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "model.gguf", kind="i2_s").out
    path, logits = ids_file([1, 2, 3]), {}
    for source, extra in ((model, ("--i2s-dialect", "x86")), (reference_checkpoint("bitnet-packed"), ())):
        done = edgebit("logits", source, "--ids-file", path, "--out", tmp_path / "out.npy", "--force", *extra)
        assert done.returncode == 0, done.stderr
        logits[source] = np.load(tmp_path / "out.npy")
    assert np.array_equal(*logits.values())
    done = edgebit("logits", source, "--ids-file", path, "--out", tmp_path / "new.npy", "--i2s-dialect", "x86")
    assert done.returncode != 0 and "go with a GGUF file alone" in done.stderr


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([300], "id 300 is outside the vocabulary of 300"),
        ([-1], "id -1 is outside the vocabulary"),
        ([], "one or more token ids"),
        ({"a": 1}, "a JSON list"),
        ([1.5], "a JSON list"),
        ([True], "a JSON list"),
        ([1] * 4097, "4097 ids, and the model's context has 4096"),
    ],
)
def test_wrong_ids_are_refused(ids, words, reference_model, ids_file, tmp_path):
    """Exit code 1, the file named, nothing written."""
    out = tmp_path / "out.npy"
    done = edgebit("logits", reference_model("bitnet-packed-odd-untied"), "--ids-file", ids_file(ids), "--out", out)
    assert done.returncode == 1
    assert words in done.stderr
    assert not list(tmp_path.glob("out.npy*"))
