"""`edgebit compare`: what it prints, how it ends, and that nothing of it stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgebit.cli import cli, main
from edgebit.errors import EngineError

MODEL = "bitnet-packed"
# `edgebit` whose contestants never answer: each writes its process id to a file, and waits.
_WAITING = """
import sys
from edgebit.asked_process import process
from edgebit.cli import main
process._START = "import os, time; open({pid!r}, 'w').write(str(os.getpid())); time.sleep(600)"
main(sys.argv[1:])
"""


@pytest.fixture
def compare(capsys):
    """Runs the command; gives exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["compare", "--threads", "1", "-n", "4", *arguments])
            raise SystemExit(0)
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def test_the_table_has_a_row_each(compare, reference_model, tmp_path):
    """Prompts come from the line and from a file, empty lines aside."""
    model, prompts = str(reference_model(MODEL)), tmp_path / "prompts.txt"
    prompts.write_text("Hello\n\n  The edge\n")
    code, out, _ = compare(model, model, "--prompt", "a", "--prompts", str(prompts))

    assert code == 0
    assert "equal, 3 of 3" in out and "compared with these" in out
    assert out.count("tok/s") == 4 and out.count("MiB") == 2


def test_a_failure_is_told_and_ends_with_its_code(compare, reference_model, tmp_path):
    """In the row, in one line; the other's answers are there."""
    broken = tmp_path / "broken.ebm"
    broken.write_bytes(b"\x89EBM\r\n\x1a\n" + bytes(100))
    code, out, err = compare(str(broken), str(reference_model(MODEL)), "--prompt", "a")

    assert code == EngineError.exit_code
    assert "1 of 2 did not answer" in err
    row = next(line for line in out.splitlines() if line.startswith(f" {broken}"))
    assert "failed: " in row


def test_answers_that_differ_are_shown_and_strict_ends_with_1(compare, reference_model):
    """Where they part, and how both go on: the second model's embedding is rounded to bf16."""
    models = [str(reference_model(name)) for name in (MODEL, "bitnet-bf16")]
    asked = [*models, "--prompt", "Hello", "--max-tokens", "64"]
    code, out, _ = compare(*asked, "--json")
    (parting,) = json.loads(out)["engines"][1]["agreement"]["prompts"]
    assert code == 0

    code, out, err = compare(*asked, "--strict")
    assert code == 1 and "the answers differ" in err
    assert f"prompt 1: parts at token {parting['parts_at'] + 1}: '" in out
    assert compare(*asked[:1], *asked[:1], *asked[2:], "--strict")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give what to ask"),
        (["--prompt", "a", "--raw", "--system", "b"], "--raw goes without it"),
    ],
)
def test_wrong_usage_is_refused(reference_model, arguments, words):
    result = CliRunner().invoke(cli, ["compare", str(reference_model(MODEL)), *arguments])

    assert result.exit_code == 2 and words in result.output


@pytest.mark.usefixtures("hang_up_is_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_process_and_no_folder(number, reference_model, tmp_path):
    """Exit code 130."""
    pid_file, temporary = tmp_path / "pid", tmp_path / "tmp"
    temporary.mkdir()
    model = str(reference_model(MODEL))
    command = [sys.executable, "-c", _WAITING.format(pid=str(pid_file)), "compare", model, model, "--prompt", "a"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    )  # fmt: skip
    try:
        pid = waited_for(pid_file)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()

    assert (process.returncode, "stopped" in said, "Traceback" in said) == (130, True, False)
    assert list(temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def waited_for(file: Path) -> int:
    """The number in it, once it is there."""
    for _ in range(600):
        if file.is_file() and (text := file.read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError(f"{file} was not written")
