"""`edgebit run` and `edgebit chat` as a user calls them."""

import json
import os
import pty
import subprocess
import sys

import pytest

from edgebit.convert import convert


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


def test_a_prefix_cache_answers_sooner_and_the_same(model, tmp_path):
    """What one call has computed of a prompt, the next one and a conversation find in the folder; damage is no harm."""
    system = "You answer in one word. You never ask. You know all about weather, tides and the moon."
    options = ("-n", 8, "--temperature", 0, "--system", system)
    wanted = json.loads(edgebit("run", model, "hello", *options, "--json").stdout)
    keep = ("--prefix-cache", tmp_path / "prefixes")
    first, again = (json.loads(edgebit("run", model, "hello", *options, *keep, "--json").stdout) for _ in range(2))
    other = json.loads(edgebit("run", model, "good bye", *options, *keep, "--json").stdout)
    assert first["tokens"] == again["tokens"] == wanted["tokens"]
    assert (first["reused_tokens"], again["reused_tokens"]) == (0, again["prompt_tokens"] - 1)
    assert 10 < other["reused_tokens"] < other["prompt_tokens"]
    talk = edgebit("chat", model, *options, *keep, "--stats", input="hello\n/bye\n")
    assert "prefill 1 tokens" in talk.stderr

    for file in (tmp_path / "prefixes").iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    healed = edgebit("run", model, "hello", *options, *keep, "--json")
    assert json.loads(healed.stdout)["tokens"] == wanted["tokens"]
    assert "is removed" in healed.stderr and "Traceback" not in healed.stderr


def test_the_heads_rows_are_counted(model):
    """Greedy reads few of them again; a draw from all reads the whole head and has nothing to count."""
    few, everything = (
        json.loads(edgebit("run", model, "hello", "-n", 8, "--temperature", t, "--top-p", 0.9, "--json").stdout)
        for t in (0, 1)
    )
    assert 1 <= few["head_rows_reread"] <= 512
    assert everything["head_rows_reread"] is None


@pytest.mark.parametrize("sampling", [("--temperature", 0), ("--temperature", 1, "--top-k", 4, "--seed", 3)])
def test_drafts_change_no_answer(sampling, model):
    """Whatever --speculate says."""
    arguments = ("run", model, "one two one two one two one two", "--raw", "-n", 200, "--json", *sampling)
    plain, drafted = (json.loads(edgebit(*arguments, "--speculate", n).stdout) for n in (0, 8))
    assert drafted["tokens"] == plain["tokens"]
    assert plain["drafted_tokens"] == 0


def test_a_damaged_model_is_one_clear_line(model, tmp_path):
    """Exit code 3, the file named, no traceback."""
    cut = tmp_path / "cut.ebm"
    cut.write_bytes(model.read_bytes()[:5000])
    done = edgebit("run", cut, "hello")
    assert done.returncode == 3
    assert "cut.ebm" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_system_message_wants_a_chat_template(native, reference_checkpoint, tmp_path):
    """Where the model has none, it would go unheard."""
    model = tmp_path / "plain.ebm"
    convert(reference_checkpoint("bitnet-packed"), model, template="none", probes=False)
    done = edgebit("run", model, "hello", "--system", "Be kind.")
    assert (done.returncode, done.stdout) == (9, "")
    assert "plain.ebm has no chat template, which --system belongs to" in done.stderr


def test_chat_keeps_the_conversation(model):
    """Each line is a turn; /new forgets; end of input ends it with exit code 0."""
    done = edgebit("chat", model, "-n", 4, "--temperature", 0, "--stats", input="one\ntwo\n/new\none\n/bye\n")
    assert done.returncode == 0, done.stderr
    prefills = [line for line in done.stderr.splitlines() if line.startswith("prefill")]
    assert len(prefills) == 3


def test_chat_in_a_pipe_prints_answers_and_nothing_else(model):
    """No prompt, no colour, no hint; the answers are those of a terminal."""
    done = edgebit("chat", model, "-n", 4, "--temperature", 0, input="one\n/bye\n")
    alone = edgebit("run", model, "one", "-n", 4, "--temperature", 0)
    assert (done.returncode, done.stdout, done.stderr) == (0, alone.stdout, "")


def test_chat_in_a_pipe_ends_with_an_error_where_a_turn_had_no_answer(model):
    """The others are answered all the same."""
    done = edgebit(
        "chat", model, "-n", 4, "--temperature", 0, "--ctx", 64, input=f"one\n{'long ' * 99}\n/new\none\n/bye\n"
    )
    alone = edgebit("run", model, "one", "-n", 4, "--temperature", 0)

    assert done.stdout == 2 * alone.stdout
    assert done.returncode == 9
    assert "1 of the messages got no answer" in done.stderr


def test_chat_keeps_an_unknown_command_from_the_model(model):
    """It says which there are."""
    done = edgebit("chat", model, "-n", 4, input="/exit now\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no command /exit." in done.stderr and "/bye" in done.stderr


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_chat_on_a_terminal(model, variables):
    """A hint at the start and a prompt, which NO_COLOR keeps plain."""
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "edgebit", "chat", str(model)]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        while b"> " not in said:
            said += os.read(ours, 1024)
        os.write(ours, b"/bye\n")
        assert process.wait(60) == 0
    os.close(ours)
    assert b"/new begins another conversation, /bye ends it" in said
    assert (b"\x1b[" in said) == (not variables)
