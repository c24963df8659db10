"""Hostile model files under sanitizers: refused by the engine's own words, and by no sanitizer's."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundle import test_model_reader
from tests.kernels.conftest import CheckBuild


@pytest.mark.slow
def test_hostile_model_files_are_refused_under_sanitizers(check_build: Callable[[str], CheckBuild], tmp_path: Path):
    """All those that the Python reader refuses, in one build; the sound file of the table is run."""
    program = check_build("sanitized").folder / "edgebit-run"
    sound = test_model_reader.write_model(tmp_path / "sound.ebm")
    assert run(program, sound).returncode == 0

    told = {}
    for name, (change, _) in test_model_reader.HOSTILE.items():
        path = test_model_reader.damaged(sound.read_bytes(), change, tmp_path / "model.ebm")
        done = run(program, path)
        assert done.returncode == 3, f"{name}: {done.returncode}\n{done.stderr}"
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, f"{name}:\n{done.stderr}"
        assert len(done.stderr.splitlines()) == 1, f"{name}:\n{done.stderr}"
        told[name] = done.stderr

    assert len(set(told.values())) > 60  # most of them in words of their own


def run(program: Path, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), str(path), "--ids", "1", "-n", "1", "--ignore-stop"],
        capture_output=True, text=True, check=False, env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"},
    )  # fmt: skip
