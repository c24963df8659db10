"""Models of the sizes of BitNet b1.58 2B-4T and 1bitLLM's 3B go through in bounded memory."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgebit.bundle.model_reader import ModelFile
from edgebit.synthesize import SHAPES, synthesize

LARGEST_TENSOR_MIB = 128_256 * 2560 * 2 >> 20  # the embedding, bf16

_MEASURE = """
import json, re, sys
from pathlib import Path
from edgebit.convert import convert
report = convert(Path(sys.argv[1]), Path(sys.argv[2]), probes=sys.argv[3] == "probes")
# Not ru_maxrss: it begins with what the process that started this one had in memory.
peak_mib = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"seconds": report.seconds, "n_probes": report.n_probes, "peak_mib": peak_mib}))
"""


@pytest.fixture(scope="module")
def synthetic():
    """The folder of a synthetic 2B-4T checkpoint, with room for what is made of it; 2.7 GB, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgebit-full-size-") as folder:
        command = [sys.executable, "-m", "edgebit", "synthesize", "--shape", "2b4t", "--out", f"{folder}/checkpoint"]
        subprocess.run(command, check=True, capture_output=True)
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("probes", "limit_mib"), [("none", 400), ("probes", 1024 + LARGEST_TENSOR_MIB)])
def test_conversion_is_bounded_in_memory(probes, limit_mib, synthetic, native):
    """Without probes a few chunks; with them the engine's mapped weights too: never 1 GB and the largest tensor."""
    model = synthetic / "model.ebm"
    figures = measured_conversion(synthetic / "checkpoint", model, probes)
    assert figures["peak_mib"] <= limit_mib
    assert figures["n_probes"] == (3 if probes == "probes" else 0)
    with ModelFile(model) as file:
        assert file.conf.parameters == 2_412_820_480
        assert all(len(probe.greedy) == 4 for probe in file.probes)
        file.verify()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_masters_of_3b_are_quantised_in_bounded_memory(tmp_path, monkeypatch):
    """Two of the 26 layers, in shards of float16: a few chunks, as with all of them (docs/models.md)."""
    monkeypatch.setitem(SHAPES, "1bitllm-3b", replace(SHAPES["1bitllm-3b"], n_layers=2))
    synthesize("1bitllm-3b", tmp_path / "checkpoint", shard_bytes=200_000_000)
    figures = measured_conversion(tmp_path / "checkpoint", tmp_path / "model.ebm", "none")
    assert figures["peak_mib"] <= 400
    shutil.rmtree(tmp_path)


def measured_conversion(checkpoint: Path, out: Path, probes: str) -> dict[str, float]:
    command = [sys.executable, "-c", _MEASURE, str(checkpoint), str(out), probes]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
