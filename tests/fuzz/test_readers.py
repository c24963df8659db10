"""Every reader of foreign files is fuzzed for FUZZ_SECONDS of the environment (5): read, or refused in our words.

The inputs follow from FUZZ_SEED (1), so that a change is not refused for what another seed would have found before it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgebit.errors import EdgebitError
from tests.fuzz.json_mutator import mutate_json
from tests.fuzz.readers import READERS

FUZZER = Path(__file__).with_name("fuzz_reader.py")
ROOT = str(Path(__file__).parents[2])  # last, so that an installed edgebit is the one that is fuzzed


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", READERS)
def test_no_input_makes_a_reader_fault(name, tmp_path):
    """Nothing but EdgebitError, no warning of numpy, not more than 1 GB, not more than 10 s for an input."""
    pytest.importorskip("atheris", reason="atheris is not installed (pip install 'edgebit[fuzz]')")
    seconds = int(os.environ.get("FUZZ_SECONDS", "5"))
    done = subprocess.run(
        [sys.executable, str(FUZZER), name, str(tmp_path / "corpus"), f"-max_total_time={seconds}",
         f"-seed={os.environ.get('FUZZ_SEED', '1')}", f"-artifact_prefix={tmp_path}/"],
        capture_output=True, text=True, errors="replace", check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), ROOT])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]  # a traceback is in stdout
    print(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("name", READERS)
def test_a_fuzzer_begins_at_files_that_are_read(name, tmp_path):
    """Else it would only ever meet the first check."""
    assert any(is_read(READERS[name], seed, tmp_path) for seed in READERS[name].seeds())


def is_read(reader, seed, folder):
    try:
        reader.read(seed, folder)
    except EdgebitError:
        return False
    return True


def test_the_mutator_gives_json_of_many_kinds():
    """Each from its seed alone, and what is no JSON goes to the mutator of bytes."""
    text = b'{"a": [1, {"b": "x"}], "c": null}'
    made = [mutate_json(text, 1000, seed, lambda data, size: b"bytes") for seed in range(300)]
    assert made == [mutate_json(text, 1000, seed, lambda data, size: b"bytes") for seed in range(300)]
    assert len(set(made)) > 100
    assert b"bytes" not in made
    assert mutate_json(b"{", 1000, 1, lambda data, size: b"bytes") == b"bytes"
    assert mutate_json(text, 3, 1, lambda data, size: b"bytes") == b"bytes"
