"""edgebit bench as a user calls it: the table, JSON, plot and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from edgebit.bundle.model_reader import ModelFile
from tests.kernels.tiny_model import corrected

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "bench.json").read_text())
FAKE = ROOT / "tests" / "bench" / "fake_llama_bench.py"
QUICK = ["--threads", "1", "--rounds", "2", "--prefill", "4,16", "--decode", "4"]


def bench(*arguments: object, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "110"} | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    return subprocess.run(
        [sys.executable, "-m", "edgebit", "bench", *map(str, arguments)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment,
    )  # fmt: skip


@pytest.fixture
def model(native, reference_model):
    return reference_model("bitnet-packed")


def with_other_probes(path: Path) -> bytes:
    """The model file, sound in itself, whose last golden token is another: as an older engine may have had it."""
    with ModelFile(path) as model:
        section = model.sections["PROB"]
    changed = bytearray(path.read_bytes())
    changed[section.offset + section.size - 4] ^= 1
    return corrected(changed)


def peer(mode: str) -> str:
    return f"rival={sys.executable} {FAKE} -m {mode}"


def test_a_table_with_a_peer_and_a_plot(model, tmp_path):
    """Each test, thread count and engine has its row; nothing on standard error; the plot is SVG."""
    plot = tmp_path / "plot.svg"
    done = bench(model, *QUICK, "--context", "0,16", "--sequences", "2", "--against", peer("sound"), "--plot", plot)

    assert (done.returncode, done.stderr) == (0, "")
    for words in ("prefill 16", "decode at 16", "2 sequences", "edgebit", "rival", "golden probes equal", "peak RSS"):
        assert words in done.stdout
    assert ElementTree.fromstring(plot.read_text()).tag == "{http://www.w3.org/2000/svg}svg"


def test_json_is_what_the_schema_says(model, tmp_path):
    """And nothing else is on standard output; --out has the same."""
    done = bench(model, *QUICK, "--context", "0", "--json", "--out", tmp_path / "bench.json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    Draft202012Validator(SCHEMA).validate(report)
    assert json.loads((tmp_path / "bench.json").read_text()) == report
    assert report["settings"]["prefill"] == [4, 16]
    assert report["command"][:2] == ["edgebit", "bench"]


def test_a_default_test_that_does_not_fit_the_model_is_named(model):
    """The small model's context of 4,096 has no room for 2,048 tokens, as many decoded ones, and one to begin with."""
    done = bench(model, "--threads", "1", "--rounds", "1", "--prefill", "4", "--decode", "2048")

    assert done.returncode == 0, done.stderr
    assert "Left out: --context 2048 needs a context of 4097" in done.stdout


def test_a_shape_is_made_once_and_kept(native, tmp_path):
    """The second call takes the first one's model; a damaged one, and one of an engine that computed otherwise, go."""
    arguments = ("--shape", "tiny", "--threads", "1", "--rounds", "1", "--prefill", "4", "--decode", "2")
    stamps = []
    for _ in range(2):
        done = bench(*arguments, cache=tmp_path)
        assert done.returncode == 0, done.stderr
        (kept,) = (tmp_path / "edgebit" / "shapes").iterdir()
        stamps.append(kept.stat().st_mtime_ns)
    assert stamps[0] == stamps[1]

    content = kept.read_bytes()
    for damaged in (content[:500], with_other_probes(kept)):
        kept.write_bytes(damaged)
        assert bench(*arguments, cache=tmp_path).returncode == 0
        assert len(kept.read_bytes()) == len(content)
        assert kept.read_bytes() != damaged


def test_a_peer_that_fails_ends_in_its_exit_code_behind_the_table(model):
    """What was measured is shown, and what failed is not hidden behind it."""
    done = bench(model, *QUICK, "--context", "0", "--against", peer("fails"))

    assert done.returncode == 15
    assert "prefill 16" in done.stdout
    assert "rival at 1 threads: rival ended with exit code 3" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_peer_that_computes_nothing_is_shown_and_not_counted(model):
    """With the reason."""
    done = bench(model, *QUICK, "--context", "0", "--against", peer("too-fast"))

    assert done.returncode == 0, done.stderr
    assert "not counted" in done.stdout
    assert "more than this machine's int8 products allow" in done.stdout


def test_an_interrupt_ends_a_peer_too(model, tmp_path):
    """Ctrl-C in the middle of a peer's run: exit code 130, no traceback, and nothing runs on."""
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "edgebit",
        "bench",
        str(model),
        *QUICK,
        "--context",
        "0",
        "--against",
        peer("hangs"),
    ]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "FAKE_LOG": str(log)}
    )
    while not log.exists() or not log.read_text().endswith("\n"):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)

    assert (running.returncode, errors.strip()) == (130, "stopped")
    assert not Path(f"/proc/{json.loads(log.read_text())[2]}").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "either MODEL or --shape"),
        (["MODEL", "--shape", "tiny"], 2, "either MODEL or --shape"),
        (["MODEL", "--threads", "1,x"], 2, "whole numbers with commas"),
        (["MODEL", "--threads", "0"], 2, "0 is not from 1"),
        (["MODEL", "--prefill", "100000"], 2, "the model's is"),
        (["MODEL", "--context", "100000"], 2, "the model's is"),
        (["MODEL", "--plot", "plot.png"], 2, "ends in .svg"),
        (["MODEL", "--isa", "quantum"], 9, "'quantum' is not known"),
        (["MODEL", "--against", "x=/nowhere/llama-bench"], 15, "there is no program"),
        (["MODEL", "--against", peer("sound"), "--against", peer("lines")], 2, "the same name"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(arguments, code, words, model):
    """With an exit code, the reason, and no traceback."""
    done = bench(*(model if word == "MODEL" else word for word in arguments))

    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("option", "name"), [("--out", "bench.json"), ("--plot", "bench.svg")])
def test_a_full_disk_keeps_the_report_of_before(option, name, model, small_disk):
    """And leaves no part of the new one."""
    before = small_disk / name
    before.write_text("before")
    with (small_disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    done = bench(model, *QUICK, "--context", "0", option, before)

    assert done.returncode == 19 and f"{name}.part: cannot be written: No space left" in done.stderr
    assert before.read_text() == "before"
    assert {path.name for path in small_disk.iterdir()} == {name, "filler"}


def test_a_damaged_model_is_refused(model, tmp_path):
    """With exit code 3, as everywhere."""
    damaged = tmp_path / "damaged.ebm"
    damaged.write_bytes(model.read_bytes()[:-100])
    done = bench(damaged, *QUICK)

    assert done.returncode == 3
    assert "damaged.ebm" in done.stderr
