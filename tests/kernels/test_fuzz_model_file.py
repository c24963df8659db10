"""Damaged model files by the thousand, under sanitizers, for FUZZ_SECONDS of the environment (20)."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit.bundle.model_format import Activation, Encoding
from edgebit.runtime.native import Engine, Library, Model
from tests.kernels.conftest import CheckBuild
from tests.kernels.tiny_model import TinyModel, tiny_conf

SHAPE = {
    "hidden_size": 8, "ffn_size": 12, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 4, "vocab_size": 9,
    "stop_tokens": (2,),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_model_file_makes_the_engine_fault(
    native: Library, check_build: Callable[[str], CheckBuild], tmp_path: Path
):
    """Whatever a file holds, with its sums set right: refused, or two tokens computed; never a fault."""
    seeds, found = tmp_path / "seeds", tmp_path / "found"
    seeds.mkdir()
    found.mkdir()
    for number, encoding in enumerate((Encoding.F32, Encoding.BF16, Encoding.I8)):
        conf = tiny_conf(**SHAPE, activation=Activation.RELU2 if number else Activation.SILU)
        tiny = TinyModel(conf, row_scales=number == 1, embedding=encoding)
        with Model.from_bytes(native, tiny.to_bytes()) as model, Engine(model) as engine:
            probe = engine.run_probe([1, 2, 3], 2)
        (seeds / f"{number}.ebm").write_bytes(tiny.to_bytes((probe,)))
    fuzzer = check_build("fuzz").folder / "checks" / "fuzz_model_file"
    seconds = int(os.environ.get("FUZZ_SECONDS", "20"))

    done = subprocess.run(
        [str(fuzzer), f"-max_total_time={seconds}", "-timeout=20", "-max_len=16384", str(found), str(seeds)],
        capture_output=True, text=True, errors="replace", check=False, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-6000:]
    assert len(list(found.iterdir())) > 3  # else no damage got past the sums
