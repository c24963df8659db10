"""`edgebit ask` as a user runs it, against a daemon behind a real mosquitto."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from jsonschema import Draft202012Validator
from mqtt_fixtures import ROOT, free_port
from paho.mqtt.publish import multiple

both = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@pytest.fixture
def ask(broker):
    """Runs `edgebit ask` at the test's broker."""

    def run(*arguments, text=None, url=None):
        return subprocess.run(
            [sys.executable, "-m", "edgebit", "ask", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "EDGEBIT_BROKER": url or broker.url, "PYTHONPATH": str(ROOT)},
        )

    return run


@both
def test_a_question(ready, ask, protocol):
    """The answer on standard output, nothing else, exit code 0."""
    ready()
    done = ask("--device", "pi", "slow 5", "--protocol", protocol)
    assert (done.returncode, done.stdout, done.stderr) == (0, "w0 w1 w2 w3 w4 \n", "")
    assert ask("--device", "pi", "-", "--no-stream", text="bytes").stdout == "é€𝄞z\n"
    assert ask("--device", "pi", "say 5", "--max-tokens", "2", "--raw").stdout == "w0 w1 \n"
    assert ask("--device", "pi", "say 1", "--chat", "--system", "be brief", "--principal", "bob").stdout == "w0 \n"


@both
def test_json(ready, ask, protocol):
    """One object of the form that the schema promises."""
    ready()
    done = ask("--device", "pi", "say 3", "--json", "--seed", "7", "--protocol", protocol)
    reply = json.loads(done.stdout)
    Draft202012Validator(json.loads((ROOT / "docs" / "schemas" / "reply.json").read_text())).validate(reply)
    assert (reply["text"], reply["seed"]) == ("w0 w1 w2 ", 7)


def test_an_error_from_the_device(ready, ask):
    """Exit code 11, in the device's words."""
    ready()
    done = ask("--device", "pi", "fail")
    assert done.returncode == 11
    assert "pi: the engine broke (500 engine)" in done.stderr


def test_a_device_that_is_not_there(ready, ask):
    """Exit code 12: unknown, stopped and lost are told apart."""
    daemon = ready()
    unknown = ask("--device", "pj", "hi")
    assert unknown.returncode == 12 and "knows no device 'pj'. It knows pi" in unknown.stderr
    daemon.stop()
    offline = ask("--device", "pi", "hi")
    assert offline.returncode == 12 and "pi is offline: it was stopped" in offline.stderr
    daemon.restart()
    time.sleep(1.5)
    daemon.kill()
    lost = ask("--device", "pi", "hi")
    assert lost.returncode == 12 and "pi is lost" in lost.stderr


def test_a_device_that_goes_away_in_the_middle(ready, ask, broker):
    """The user hears at once, not after the time-out."""
    daemon = ready()
    argv = [sys.executable, "-m", "edgebit", "ask", "--device", "pi", "slow 200", "--broker", broker.url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as asking:
        assert asking.stdout.read(3) == "w0 "
        daemon.kill()
        began = time.monotonic()
        assert asking.wait(20) == 12 and time.monotonic() - began < 10
        assert "went lost before it had answered" in asking.stderr.read()


def test_too_slow(ready, ask):
    """Exit code 12 when the time is over; what came is shown."""
    ready()
    done = ask("--device", "pi", "slow 200", "--timeout", "2")
    assert done.returncode == 12 and "--timeout" in done.stderr
    assert done.stdout.startswith("w0 w1 ")


def test_ctrl_c_cancels_on_the_device_too(ready, broker, ears):
    """130 for the shell, and the device does not go on for nobody."""
    ready()
    ear = ears(broker.port, "edgebit/v1/pi/out/#")
    argv = [sys.executable, "-m", "edgebit", "ask", "--device", "pi", "slow 1000", "--broker", broker.url]
    argv += ["--max-tokens", "1000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as asking:
        assert asking.stdout.read(3) == "w0 "
        asking.send_signal(signal.SIGINT)
        assert asking.wait(20) == 130
    last = json.loads(ear.until(lambda message: b'"done"' in message.payload).payload)
    assert last["error"]["code"] == "cancelled"


def test_the_list(ready, ask):
    """Devices by what the broker has retained."""
    assert "knows no device" in ask("--list").stdout
    ready().kill()
    time.sleep(0.3)
    assert ask("--list").stdout.split("\n")[1].split()[:2] == ["pi", "lost"]
    row = json.loads(ask("--list", "--json").stdout)[0]
    assert (row["device"], row["availability"], row["info"]["model"]["name"]) == ("pi", "lost", "fake")


def test_the_list_takes_anything_that_somebody_published(broker, ask):
    """A broker keeps what anybody retains there: it is shown as it is, and never obeyed."""
    published = {"x/availability": '{"state":"[/red]"}', "x/info": '{"model":"m"}', "y/info": "[]"}
    multiple([(f"edgebit/v1/{topic}", payload, 1, True) for topic, payload in published.items()], port=broker.port)

    done = ask("--list")

    assert (done.returncode, done.stdout.splitlines()[-1].split()) == (0, ["x", "[/red]"])


def test_no_broker(ask):
    """Exit code 10, and what to look at."""
    done = ask("--device", "pi", "hi", url=f"mqtt://127.0.0.1:{free_port()}")
    assert done.returncode == 10 and "cannot be reached" in done.stderr
    assert ask("--device", "pi", "hi", url="localhost").returncode == 10


@pytest.mark.parametrize(
    "arguments",
    [["hi"], ["--device", "pi"], ["--device", "pi", "--raw", "--system", "x", "hi"], ["--device", "pi", ""]],
)
def test_wrong_usage(ask, arguments):
    """Exit code 2, before the broker is asked."""
    assert ask(*arguments).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code", "promised"),
    [
        (["--device", "Pi 5"], 12, "try 'pi-5'"),
        (["--device", "+"], 12, "no device's name"),
        (["--device", "pi", "--root", "a#"], 10, "root 'a#'"),
        (["--device", "pi", "--principal", "a/b"], 10, "principal 'a/b'"),
        (["--device", "pi", "--ca", __file__], 10, "mqtts://"),
        (["--device", "pi", "--timeout", "inf"], 2, "--timeout"),
    ],
)
def test_what_no_topic_can_be_is_refused(ask, arguments, code, promised):
    """Before anything is sent, in words that say what is allowed."""
    done = ask(*arguments, "hi")
    assert done.returncode == code and promised in done.stderr and "Traceback" not in done.stderr
