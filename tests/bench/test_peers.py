"""Peers: what --against takes, what a peer is asked, and what of its output is believed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit.bench.peers import parse_peer, parse_rows
from edgebit.errors import PeerError
from tests.bench.fake_llama_bench import DECODE_TS, PREFILL_TS


def calls(log: Path) -> list[tuple[list[str], int]]:
    """Arguments behind the model, and the number of cores, of each call."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(arguments[2:], cores) for arguments, cores, _ in lines]


@pytest.mark.parametrize(
    ("help", "depth", "start"),
    [
        ("llama.cpp", ["-p", "0", "-n", "8", "-d", "64"], ["-p", "0", "-n", "1", "--no-warmup"]),
        ("ik", ["-p", "0", "-n", "0", "-gp", "64,8"], ["-p", "0", "-n", "1", "-w", "0"]),
        ("old", None, ["-p", "0", "-n", "1"]),
    ],
)
def test_a_peer_is_asked_what_its_help_names(help, depth, start, against, tmp_path, monkeypatch):
    """Prompts and decode in one call, a context where it can, its start; all on as many cores as threads."""
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    run = parse_peer(against(help=help)).measure(1, (16, 32), 8, (0, 64))

    end = ["-t", "1", "-r", "1", "-o", "json"]
    wanted = [["-p", "16,32", "-n", "8", *end], *([[*depth, *end]] if depth else []), [*start, *end]]
    assert calls(log) == [(arguments, 1) for arguments in wanted]
    figures = {"prefill/16": PREFILL_TS, "prefill/32": PREFILL_TS, "decode/0": DECODE_TS, "all_logits/0": DECODE_TS}
    figures |= {"decode/64": DECODE_TS} if depth else {}
    assert {name: value for name, value in run.figures.items() if name != "start_s"} == figures
    assert run.figures["start_s"] >= 0
    assert run.said == {"build_commit": "0123abc", "model_type": "fake"}
    assert run.doubts == {}


def test_json_by_lines_is_read_too(against):
    """llama-bench's other form of JSON, whatever stands before it."""
    assert parse_peer(against("lines")).measure(1, (16,), 8, (0,)).figures["decode/0"] == DECODE_TS


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("not-a-number", "no speed above 0"),
        ("negative", "no speed above 0"),
        ("text-for-speed", "no speed above 0"),
        ("other-rows", "has no row with"),
        ("no-output", "no JSON of llama-bench"),
        ("not-json", "no JSON of llama-bench"),
        ("cut-off", "no JSON of llama-bench"),
        ("deep", "no JSON of llama-bench"),
        ("list-of-numbers", "no JSON of llama-bench"),
        ("signal", "killed by signal 11"),
        ("fails", "exit code 3.*model is broken"),
    ],
)
def test_a_peer_that_misbehaves_is_refused(mode, words, against):
    """With its name and the reason; never a figure made up."""
    with pytest.raises(PeerError, match=rf"fake.*{words}"):
        parse_peer(against(mode)).measure(1, (16,), 8, (0,))


@pytest.mark.parametrize(
    ("mode", "words"), [("wrong-threads", "ran with 64 threads where 1"), ("doubtful", "other logits at once")]
)
def test_what_a_peer_says_against_itself_is_kept(mode, words, against):
    """Its figures are there, with the doubt."""
    run = parse_peer(against(mode)).measure(1, (16,), 8, (0,))

    assert run.figures["prefill/16"] == PREFILL_TS
    assert words in run.doubts["prefill/16"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("llama-bench", "NAME=COMMAND is needed"),
        ("=llama-bench", "NAME=COMMAND is needed"),
        ("edgebit=true", "none of edgebit, machine, onnx"),
        ("a b=true", "NAME=COMMAND is needed"),
        ("x=", "no program ''"),
        ("x=/nowhere/llama-bench -m model", "no program '/nowhere/llama-bench'"),
        ("x='unclosed", "cannot be taken apart"),
    ],
)
def test_a_peer_put_wrongly_is_refused_before_anything_runs(text, words):
    """What is wrong, and how it should look."""
    with pytest.raises(PeerError, match=words):
        parse_peer(text)


def test_a_program_that_is_no_llama_bench_is_refused(against):
    """Its --help decides."""
    with pytest.raises(PeerError, match="not like llama-bench"):
        parse_peer(against(help="other"))


def test_a_program_that_cannot_be_run_is_refused(tmp_path):
    """A file with the right to be executed and no content that could be."""
    program = tmp_path / "llama-bench"
    program.write_bytes(b"\x7fELF nothing")
    program.chmod(0o755)
    with pytest.raises(PeerError, match="cannot be asked for its --help"):
        parse_peer(f"x={program}")


def test_the_caller_keeps_its_cores(against):
    """Pinning a peer leaves our own affinity as it was."""
    before = os.sched_getaffinity(0)
    parse_peer(against()).measure(1, (16,), 8, (0,))
    assert os.sched_getaffinity(0) == before


def test_rows_are_found_behind_a_log_with_brackets():
    """The first list of objects counts."""
    rows: Callable[[str], object] = lambda text: parse_rows(text, "x")  # noqa: E731
    assert rows('[info] hello\n  [1]\n[\n {"a": 1}\n]\n[{"b": 2}]') == [{"a": 1}]
