"""`edgebit ask --pool` as a user runs it, against daemons behind a real mosquitto."""

import json
import os
import subprocess
import sys

import pytest
from mqtt_fixtures import IMPORTED


@pytest.fixture
def ask(broker):
    """Runs `edgebit ask` at the test's broker."""

    def run(*arguments):
        argv = [sys.executable, "-m", "edgebit", "ask", *arguments, "--broker", broker.url]
        environment = {**os.environ, **IMPORTED}
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)

    return run


def test_a_question_to_a_pool(ready, broker, ears, ask):
    """The answer and who gave it; the list shows who is in; without anybody there, who could be is said."""
    daemon = ready(toml="[pool]\nnames = ['lab']\nrejoin_s = 0")
    status = ears(broker.port, "edgebit/v1/pi/status")
    status.until(lambda message: json.loads(message.payload)["pools"] == {"lab": True})

    done = ask("--pool", "lab", "say 3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "w0 w1 w2 \n", "")
    assert json.loads(ask("--pool", "lab", "say 1", "--json").stdout)["dev"] == "pi"
    assert ask("--pool", "lab", "fail").returncode == 11
    table = ask("--list").stdout.splitlines()
    assert (table[0].split()[-1], table[-1].split()[-1]) == ("pools", "lab")

    daemon.stop()
    nobody = ask("--pool", "lab", "say 1")
    assert nobody.returncode == 12 and "To it belong pi (offline)" in nobody.stderr
    assert ask("--list").stdout.splitlines()[-1].split()[-1] == "(lab)"


@pytest.mark.parametrize("arguments", [["--device", "pi", "hi"], [], ["--sign-key", "k", "hi"]])
def test_wrong_usage(ask, arguments):
    """Exit code 2, before the broker is asked."""
    assert ask("--pool", "lab", *arguments).returncode == 2


def test_what_is_no_name_of_a_pool(ask):
    """Before anything is sent, in words that say what is allowed."""
    done = ask("--pool", "My Lab", "hi")
    assert done.returncode == 12 and "try 'my-lab'" in done.stderr
