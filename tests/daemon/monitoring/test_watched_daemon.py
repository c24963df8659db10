"""A daemon as a process: what a service manager hears of it, and what callers can ask of its past and its health."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from mqtt_fixtures import IMPORTED, TESTS, VALIDATORS, WAIT_S, free_port

from edgebit.cli import cli

QUICK = "[history]\ninterval_s = 1.0\nwrite_s = 1.0\n[health]\nstep_max_s = 1.0\n"


def ask(ear, op, fields=None):
    ear.say(f"edgebit/v1/pi/in/alice/{op}", {"id": f"q{time.monotonic_ns()}", **(fields or {})})
    return ear.frames()[-1]


def metrics(broker, *arguments):
    """What `edgebit metrics` prints as JSON."""
    arguments = [*arguments, "--json", "--device", "pi", "--broker", broker.url, "--principal", "alice"]
    done = CliRunner().invoke(cli, ["metrics", *arguments], catch_exceptions=False)
    return json.loads(done.output)


def scraped(port):
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def test_figures_history_and_health_are_asked_for(broker, ready, ears):
    """Rows of what was done, the three levels, and the same figures over HTTP and by the command."""
    port = free_port()
    ready(toml=f'{QUICK}[prometheus]\nlisten = "127.0.0.1:{port}"\n')
    ear = ears(broker.port, "edgebit/v1/pi/out/alice/#")
    for _ in range(2):
        assert "error" not in ask(ear, "generate", {"prompt": "say 3"})
    deadline = time.monotonic() + WAIT_S
    while True:
        reply = ask(ear, "history", {"since_s": 600, "step_s": 600, "fields": ["answered", "answer_tokens", "t_soc"]})
        VALIDATORS["history"].validate(reply)
        assert reply["columns"] == ["t", "n", "answered", "answer_tokens", "t_soc", "t_soc_min", "t_soc_max"]
        sums = [sum(row[column] for row in reply["rows"]) for column in (2, 3)]
        if sums == [2, 6]:
            break
        assert time.monotonic() < deadline, reply
    assert reply["rows"][-1][4] == 48.2
    health = ask(ear, "health")
    VALIDATORS["health"].validate(health)
    assert (health["alive"], health["ready"], health["healthy"]) == (True, True, True)
    assert health["probes"]["passed"] is True
    assert ask(ear, "history", {"since_s": "x"})["error"]["code"] == "bad_field"
    text = scraped(port)
    assert 'edgebit_jobs_total{outcome="answered"} 2\n' in text
    assert 'edgebit_tokens_total{kind="answer"} 6\n' in text
    assert 'edgebit_temperature_celsius{sensor="t_soc"} 48.2\n' in text and 'edgebit_info{device="pi"' in text
    shown = metrics(broker, "show")
    assert (shown["answer_tokens"], shown["refused"], shown["errors"]) == (6, 1, {"bad_field": 1})
    assert metrics(broker, "summary", "--since", "10m")["figures"]["answered"]["total"] == 2


@pytest.fixture
def manager(tmp_path):
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(WAIT_S)
        yield sock


def hear(sock, wanted, *, within_s=WAIT_S):
    """Wait for a word."""
    deadline = time.monotonic() + within_s
    while (word := sock.recv(4096).decode()) != wanted:
        assert time.monotonic() < deadline, word


def watched(manager, broker, tmp_path):
    config = tmp_path / "edgebitd.toml"
    config.write_text(f'[device]\nname = "pi"\n[mqtt]\nurl = "{broker.url}"\n[report]\ninterval_s = 0.3\n{QUICK}')
    environment = {
        **os.environ, **IMPORTED, "NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "300000",
    }  # fmt: skip
    argv = [sys.executable, str(TESTS / "daemon" / "fake_daemon.py"), str(config), str(tmp_path / "state"), "fast"]
    with (tmp_path / "log").open("wb") as log:
        return subprocess.Popen(argv, env=environment, stdout=log, stderr=log)


def test_a_service_manager_hears_of_slow_work_and_not_of_a_hang(broker, manager, tmp_path, ears):
    """A daemon that decodes slowly goes on saying so; with an engine that hangs, it falls silent and does not end."""
    process = watched(manager, broker, tmp_path)
    try:
        hear(manager, "READY=1")
        hear(manager, "STATUS=ready, connected")
        ear = ears(broker.port, "edgebit/v1/pi/out/alice/#")
        ear.say("edgebit/v1/pi/in/alice/generate", {"id": "slow", "prompt": "slow 12"})
        hear(manager, "STATUS=busy, connected")
        for _ in range(3):
            hear(manager, "WATCHDOG=1")
        assert ear.frames()[-1]["t"] == "done"

        ear.say("edgebit/v1/pi/in/alice/generate", {"id": "hangs", "prompt": "hang"})
        manager.settimeout(0.9)  # three times as long as the manager waits
        with pytest.raises(TimeoutError):
            while True:
                manager.recv(4096)
        assert process.poll() is None
        assert "no step for 1 s" in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait(WAIT_S)


def test_a_clean_stop_is_said(broker, manager, tmp_path):
    """STOPPING=1, and the history is on the disk."""
    process = watched(manager, broker, tmp_path)
    try:
        hear(manager, "STATUS=ready, connected")
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0
    hear(manager, "STOPPING=1")
    assert list((tmp_path / "state" / "history").glob("*.ebh"))
