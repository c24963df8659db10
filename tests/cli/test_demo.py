"""`edgebit demo`: the whole way, with either broker, and nothing left behind."""

import contextlib
import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgebit import local_broker
from edgebit.errors import BrokerError


def demo(tmp_path, *questions, path=None):
    environment = {**os.environ, "TMPDIR": str(tmp_path), **({"PATH": path} if path else {})}
    return subprocess.run(
        [sys.executable, "-m", "edgebit", "demo", *questions],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=180,
        check=False,
    )


def running(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_the_demo_answers_and_leaves_nothing(native, tmp_path):
    """Build, broker, deploy, question, answer; then no file and no process of it is there."""
    done = demo(tmp_path, "turn off the kitchen light")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    question = lines.index("> turn off the kitchen light")
    assert lines[question + 1]
    assert "edgebit deploy" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert running(tmp_path) == []


def test_answers_stay_on_a_terminal(native, tmp_path):
    """On a terminal nothing is drawn over once the questions begin."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "edgebit", "demo", "thanks"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    output = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(leader, 4096):
            output += piece
    os.close(leader)
    assert process.wait(60) == 0, output
    answers = output.partition(b"4. Questions over MQTT")[2]
    assert b"thanks" in answers
    assert b"\x1b[2K" not in answers


def test_amqtt_serves_where_there_is_no_mosquitto(monkeypatch):
    """The broker of the demo extra runs and stops."""
    monkeypatch.setattr(local_broker.shutil, "which", lambda *_, **__: None)
    with local_broker.local_broker() as broker:
        assert broker.program == "amqtt"
        assert broker.url.startswith("mqtt://127.0.0.1:")


def test_without_any_broker_the_mend_is_said(monkeypatch):
    monkeypatch.setattr(local_broker.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(local_broker.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BrokerError, match="apt-get install mosquitto"), local_broker.local_broker():
        raise AssertionError("a broker came from nowhere")


def test_a_broker_that_does_not_start_is_reported(monkeypatch, require_tool):
    """Its last words are in the error."""
    require_tool("mosquitto")
    monkeypatch.setattr(local_broker, "_MOSQUITTO_CONF", "nonsense {port}\n")
    folders = set(Path(tempfile.gettempdir()).glob("edgebit-broker-*"))
    with pytest.raises(BrokerError, match="mosquitto does not start"), local_broker.local_broker():
        raise AssertionError("it started")
    assert set(Path(tempfile.gettempdir()).glob("edgebit-broker-*")) == folders
