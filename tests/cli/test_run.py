"""`edgebit run` and `edgebit chat` as a user calls them."""

import json
import signal
import subprocess
import sys

import pytest


def edgebit(*arguments, **options):
    command = [sys.executable, "-m", "edgebit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


@pytest.fixture
def model(reference_model):
    return reference_model("bitnet-packed")


def test_run_prints_the_answer_and_the_figures(model):
    """The answer goes to standard output, --stats to standard error."""
    done = edgebit("run", model, "hello", "-n", 8, "--temperature", 0, "--stats")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "tok/s" in done.stderr


def test_run_json_is_one_object(model):
    done = edgebit("run", model, "hello", "-n", 8, "--seed", 5, "--json")
    answer = json.loads(done.stdout)
    assert len(answer["tokens"]) <= 8
    assert answer["seed"] == 5
    assert answer["peak_rss_mib"] > 0


def test_run_reads_the_prompt_from_standard_input(model):
    typed = edgebit("run", model, "hello", "-n", 8, "--temperature", 0)
    piped = edgebit("run", model, "-", "-n", 8, "--temperature", 0, input="hello")
    assert piped.stdout == typed.stdout


def test_a_damaged_model_is_one_clear_line(model, tmp_path):
    """Exit code 3, the file named, no traceback."""
    cut = tmp_path / "cut.ebm"
    cut.write_bytes(model.read_bytes()[:5000])
    done = edgebit("run", cut, "hello")
    assert done.returncode == 3
    assert "cut.ebm" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_cleanly(model):
    """SIGINT ends the answer with exit code 130 and no traceback."""
    command = [sys.executable, "-m", "edgebit", "run", str(model), "hello", "--temperature", "2", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # it answers
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


def test_chat_keeps_the_conversation(model):
    """Each line is a turn; /new forgets; end of input ends it with exit code 0."""
    done = edgebit("chat", model, "-n", 4, "--temperature", 0, "--stats", input="one\ntwo\n/new\none\n/bye\n")
    assert done.returncode == 0, done.stderr
    prefills = [line for line in done.stderr.splitlines() if line.startswith("prefill")]
    assert len(prefills) == 3
