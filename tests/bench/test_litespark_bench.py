"""bench/peers/litespark_bench.py without the package it drives: options, and what it says."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from edgebit.bench.peers import parse_peer

PROGRAM = Path(__file__).resolve().parents[2] / "bench" / "peers" / "litespark_bench.py"


def test_it_is_taken_for_a_llama_bench(tmp_path):
    """Its --help names the options, and no way to decode behind a context."""
    peer = parse_peer(f"litespark={sys.executable} {PROGRAM} -m {tmp_path}")

    assert (peer.depth_option, peer.cold_options) == (None, ())


def test_a_missing_package_is_named(tmp_path):
    """With the way to install it, and no traceback. The tests' own environment does not have it."""
    assert importlib.util.find_spec("litespark_inference") is None
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "-m", str(tmp_path), "-t", "1"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "pip install litespark-inference" in done.stderr
    assert "Traceback" not in done.stderr
