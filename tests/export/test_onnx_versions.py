"""Releases of ONNX Runtime, from the floor to the latest: every model, and every way that they optimize a graph."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from export.onnx_run import NativeRun

pytest.importorskip("onnx")

VERSIONS = ["1.19.2", "1.20.1", "1.22.0", "1.24.4", "1.28.0", "1.32.0"]
TWO_BITS = STANDARD = (1, 24)  # the first release with MatMulNBits of two bits, and the first with opset 24
IN_PIECES = (1, 20)  # before, several tokens after a past are wrong (docs/onnx.md)
WORKER = Path(__file__).with_name("onnx_versions_worker.py")
NAMES = sorted(path.name for path in (Path(__file__).parents[1] / "reference").iterdir() if path.is_dir())
OPTIMIZED, SAME_BITS = "llama-bitlinear-packed", "bitnet-packed"  # in all ways; without a SiLU, which differs by 1e-7
LEVELS = [0, 1, 2, 99]
N_TOKENS, N_GREEDY, PIECES = 56, 12, [17, 18, 33]  # the tokens in one pass


@dataclass(frozen=True)
class Form:
    """What is run of a model."""

    name: str
    ops: str
    fallback: str = "exact"
    with_library: bool = False
    logits: str = "all"
    all_ways: bool = False

    @property
    def is_near(self) -> bool:
        """By the compact bodies, which round otherwise than the engine."""
        return self.fallback == "compact" and not self.with_library

    def is_refused(self, release: tuple[int, ...]) -> bool:
        return (self.ops == "standard" and release < STANDARD) or (self.is_near and release < TWO_BITS)


def forms() -> Iterator[Form]:
    for ops in ("contrib", "standard"):
        for fallback in ("exact", "compact"):
            yield from (Form(OPTIMIZED, ops, fallback, given, all_ways=True) for given in (True, False))
        yield from (Form(name, ops) for name in NAMES)
        yield Form(SAME_BITS, ops, all_ways=True)
        yield Form(SAME_BITS, ops, logits="last")
    yield from (Form(name, "contrib", "compact") for name in NAMES if name != OPTIMIZED)


class Wanted:
    """The engine's: logits of the tokens, then those of each greedy step."""

    def __init__(self, engine: NativeRun, tokens: np.ndarray) -> None:
        self.logits = engine.step(tokens)
        self.steps = [self.logits[-1]]
        for _ in range(N_GREEDY - 1):
            self.steps.append(engine.step([int(self.steps[-1].argmax())])[-1])

    def has(self, greedy: list[int]) -> bool:
        """Whether tokens are the engine's, up to one that it takes for as good but for a hair."""
        for token, logits in zip(greedy, self.steps, strict=True):
            if token != logits.argmax():
                return bool(logits.max() - logits[token] < 0.25)
        return True


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 60, N_TOKENS)


@pytest.fixture(scope="module")
def wanted(native, quick_model, tokens) -> dict[str, Wanted]:
    found = {}
    for name in NAMES:
        with NativeRun(native, quick_model(name)) as engine:
            found[name] = Wanted(engine, tokens)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_gives_the_engines_answers(version, wanted, tokens, ort_library, exported, pypi_wheel, tmp_path):
    """With the library and by the exact bodies the engine's, by the compact ones near it and never zero.

    One model at all levels of optimization, with functions inlined ahead and not; each model in one pass, in pieces,
    token by token, and in batches. A release that is too old refuses.
    """
    with zipfile.ZipFile(pypi_wheel(f"onnxruntime=={version}")) as wheel:
        wheel.extractall(tmp_path)
    asked = {str(form): form for form in forms()}
    runs = {
        key: {
            "folder": str(exported(form.name, ops=form.ops, fallback=form.fallback, logits=form.logits)),
            "library": str(ort_library) if form.with_library else None,
            "levels": LEVELS if form.all_ways else [99],
            "inlines": [True, False] if form.all_ways else [True],
            "sequences": not form.all_ways and not form.is_near,
        }
        for key, form in asked.items()
    }
    arrays = tmp_path / "arrays.npz"
    job = {"tokens": tokens.tolist(), "pieces": PIECES, "greedy": N_GREEDY, "arrays": str(arrays), "runs": runs}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(WORKER)],
        input=json.dumps(job), env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["version"] == version
    assert len(said["results"]) == sum(len(run["levels"]) * len(run["inlines"]) for run in runs.values())
    release = tuple(map(int, version.split(".")[:2]))
    with np.load(arrays) as found:
        for number, result in enumerate(said["results"]):
            keys = [key for key in found if key.startswith(f"{number}.")]
            form, of_it = asked[result["run"]], {key.partition(".")[2]: found[key] for key in keys}
            check(result, of_it, form, release, wanted[form.name])


def check(result: dict, arrays: dict[str, np.ndarray], form: Form, release: tuple[int, ...], wanted: Wanted) -> None:
    """One run: refused where it must be, else as near as is promised."""
    where = f"{form}, level {result['level']}, inlined ahead: {result['inlines']}"
    if form.is_refused(release):
        assert result.get("error"), f"{where}: it ran"
        return
    assert "error" not in result, f"{where}: {result['error']}"
    expected = wanted.logits if form.logits == "all" else wanted.logits[-1:]
    found = arrays["logits"]
    if form.is_near:
        assert np.abs(found).max() > 1, f"{where}: zeros"
        assert np.abs(found - expected).mean() < 0.06 * expected.std(), where
        return
    check_exact(found, expected, form, where)
    assert wanted.has(result["greedy"]), where
    if form.name == SAME_BITS:
        assert np.array_equal(arrays["first"], wanted.logits[0]), where
    if "pieces" in arrays:
        assert arrays["batch"].max() < 1e-3, f"{where}: {arrays['batch']}"
        if form.logits == "all" and release >= IN_PIECES:
            check_exact(arrays["pieces"], expected, form, f"{where}, in pieces")


def check_exact(found: np.ndarray, expected: np.ndarray, form: Form, where: str) -> None:
    """Of the model in all ways, nearly all tokens are the engine's; of others, all but for noise of int8 steps."""
    errors = np.abs(found - expected)
    assert errors.mean() < 0.03 * expected.std(), f"{where}: {errors.max(axis=1)}"
    if form.all_ways and form.name == OPTIMIZED:
        largest = errors.max(axis=1)
        assert np.median(largest) < 1e-5, f"{where}: {largest}"
        others = (largest > 5e-4).sum()  # more than a step of the head's 15 bits: an int8 step fell the other way
        assert others <= (N_TOKENS // 10 if form.ops == "standard" else 0), f"{where}: {largest}"
