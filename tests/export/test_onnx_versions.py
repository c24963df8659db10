"""Releases of ONNX Runtime, from the floor to the latest, in every way that they optimize a graph."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from export.onnx_run import NativeRun

pytest.importorskip("onnx")

VERSIONS = ["1.19.2", "1.22.0", "1.24.4", "1.28.0", "1.32.0"]
TWO_BITS = STANDARD = (1, 24)  # the first release with MatMulNBits of two bits, and the first with opset 24
WORKER = Path(__file__).with_name("onnx_versions_worker.py")
N_TOKENS, N_GREEDY = 56, 12  # the first in one pass
NAME = "llama-bitlinear-packed"


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_gives_the_engines_answers(
    version, native, ort_library, quick_model, exported, pypi_wheel, tmp_path
):
    """With the library and by the exact bodies the engine's, by the compact ones near it and never zero.

    At all levels of optimization, with functions inlined ahead and not. A release that is too old refuses.
    """
    with zipfile.ZipFile(pypi_wheel(f"onnxruntime=={version}")) as wheel:
        wheel.extractall(tmp_path)
    runs = {
        f"{ops}, {fallback}, {'library' if with_library else 'none'}": {
            "folder": str(exported(NAME, ops=ops, fallback=fallback)),
            "library": str(ort_library) if with_library else None,
        }
        for ops in ("contrib", "standard")
        for fallback in ("exact", "compact")
        for with_library in (True, False)
    }
    with NativeRun(native, quick_model(NAME)) as engine:
        tokens = np.random.default_rng(4).integers(0, engine.model.info.vocab_size, N_TOKENS)
        wanted = engine.step(tokens)
        greedy, last = [], wanted[-1]
        for _ in range(N_GREEDY):
            greedy.append(int(last.argmax()))
            last = engine.step(greedy[-1:])[-1]
    job = {"tokens": tokens.tolist(), "greedy": N_GREEDY, "runs": runs}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(WORKER)],
        input=json.dumps(job),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["version"] == version and len(said["results"]) == len(runs) * 8
    for result in said["results"]:
        check(result, tuple(map(int, version.split(".")[:2])), wanted, greedy)


def check(result: dict, release: tuple[int, ...], wanted: np.ndarray, greedy: list[int]) -> None:
    """One run: refused where it must be, else as near as is promised."""
    where = f"{result['run']}, level {result['level']}, inlined ahead: {result['inlines']}"
    ops, fallback, given = result["run"].split(", ")
    by_bodies = given == "none"
    if (ops == "standard" and release < STANDARD) or (by_bodies and fallback == "compact" and release < TWO_BITS):
        assert result.get("error"), f"{where}: it ran"
        return
    assert "error" not in result, f"{where}: {result['error']}"
    found = np.array(result["logits"])
    if by_bodies and fallback == "compact":
        assert np.abs(found).max() > 1, f"{where}: zeros"
        assert np.abs(found - wanted).mean() < 0.06 * wanted.std(), where
        return
    assert result["greedy"] == greedy, where
    errors = np.abs(found - wanted).max(axis=1)
    assert np.median(errors) < 1e-5, f"{where}: {errors}"
    others = (errors > 5e-4).sum()  # more than a step of the head's 15 bits: an int8 step fell the other way
    assert others <= (N_TOKENS // 10 if ops == "standard" else 0), f"{where}: {errors}"
