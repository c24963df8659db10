"""What the tests of examples/ share: exported folders, and the engine's own answer."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgebit.convert import convert
from edgebit.resources import assistant_model_dir
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model


@pytest.fixture(scope="session")
def onnx_folder_of(native: Library, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the demo model as `edgebit export onnx` writes it with options, made once a run.

    The operators' library is built with the engine's.
    """
    pytest.importorskip("onnx", reason="writes the folder (pip install 'edgebit[onnx]')")
    parent = tmp_path_factory.mktemp("onnx")

    def export(*options: str) -> Path:
        folder = parent / "_".join(("demo", *options))
        if not folder.exists():
            command = [
                sys.executable,
                "-m",
                "edgebit",
                "export",
                "onnx",
                str(assistant_model_dir()),
                "--out",
                str(folder),
            ]
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        return folder

    return export


@pytest.fixture(scope="session")
def onnx_folder(onnx_folder_of: Callable[..., Path]) -> Path:
    """The same without an option."""
    return onnx_folder_of()


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Gives a copy of a folder, to be damaged."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def engine_greedy(native: Library, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[int], int], list[int]]:
    """Gives the tokens that the native engine answers `ids` with, the likeliest at each step, without a stop."""
    path = tmp_path_factory.mktemp("model") / "demo.ebm"
    convert(assistant_model_dir(), path, probes=False)

    def greedy(ids: list[int], n: int) -> list[int]:
        answer: list[int] = []
        with Model.open(native, path) as model, Engine(model, ctx_len=len(ids) + n, kv="f32") as engine:
            engine.eval(ids)
            for _ in range(n):
                answer.append(int(np.frombuffer(engine.logits(), np.float32).argmax()))
                engine.eval(answer[-1:])
        return answer

    return greedy
