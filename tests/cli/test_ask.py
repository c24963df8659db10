"""`edgebit ask` as a user runs it, against a daemon behind a real mosquitto."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from jsonschema import Draft202012Validator
from mqtt_fixtures import IMPORTED, ROOT, free_port
from paho.mqtt.publish import multiple

from edgebit.cli.ctrl_c import interrupting
from edgebit.keys import new_key
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient

both = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@pytest.fixture
def ask(broker):
    """Runs `edgebit ask` at the test's broker."""

    def run(*arguments, text=None, url=None, **variables):
        return subprocess.run(
            [sys.executable, "-m", "edgebit", "ask", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "EDGEBIT_BROKER": url or broker.url, **IMPORTED, **variables},
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


def test_a_signed_question(ready, ask, tmp_path):
    """A key of `edgebit keys`, its public line in the device's file, and it is told what is wrong without."""
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    keys = [sys.executable, "-m", "edgebit", "keys", "new", "alice", "--no-password", "--json"]
    made = subprocess.run(keys, capture_output=True, text=True, check=True, env={**os.environ, **IMPORTED, **home})
    key = json.loads(made.stdout)
    (tmp_path / "principals.toml").write_text(f'[alice]\nkey = "{key["public_key"]}"\n')
    daemon = ready(mqtt='auth = "signed"', toml=f'[identity]\nprincipals = "{tmp_path}/principals.toml"\n')
    question = ("--device", "pi", "say 2", "--principal", "alice")
    assert ask(*question, "--sign-key", "alice", **home).stdout == "w0 w1 \n"
    assert ask(*question, "--sign-key", key["secret_file"]).stdout == "w0 w1 \n"
    unsigned = ask(*question)
    assert (unsigned.returncode, unsigned.stdout) == (11, "") and "--sign-key" in unsigned.stderr
    unknown = ask("--device", "pi", "say 2", "--principal", "bob", "--sign-key", "alice", **home)
    assert (
        unknown.returncode == 11 and "no key of principal 'bob'" in unknown.stderr and "--principal" in unknown.stderr
    )
    assert "there is no secret key 'none'" in ask(*question, "--sign-key", "none", **home).stderr
    daemon.stop()


def test_a_signature_where_none_is_asked_for(ready, ask, tmp_path, monkeypatch):
    """Said, rather than left out in silence."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    key = new_key("alice", None)
    ready()
    refused = ask("--device", "pi", "say 2", "--sign-key", str(key.secret))
    assert refused.returncode == 11 and "its mode is 'open'" in refused.stderr


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


def until_availability(broker, ears, state):
    ear = ears(broker.port, "edgebit/v1/pi/availability")
    ear.until(lambda message: json.loads(message.payload)["state"] == state)


def test_a_device_that_is_not_there(ready, ask, broker, ears):
    """Exit code 12: unknown, stopped and lost are told apart."""
    daemon = ready()
    unknown = ask("--device", "pj", "hi")
    assert unknown.returncode == 12 and "knows no device 'pj'. It knows pi" in unknown.stderr
    daemon.stop()
    offline = ask("--device", "pi", "hi")
    assert offline.returncode == 12 and "pi is offline: it was stopped" in offline.stderr
    daemon.restart()
    until_availability(broker, ears, "online")
    daemon.kill()
    lost = ask("--device", "pi", "hi")
    assert lost.returncode == 12 and "pi is lost" in lost.stderr


def test_a_device_that_goes_away_in_the_middle(ready, ask, broker):
    """The user hears so, and not that no answer came in time."""
    daemon = ready()
    argv = [sys.executable, "-m", "edgebit", "ask", "--device", "pi", "slow 200", "--broker", broker.url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as asking:
        assert asking.stdout.read(3) == "w0 "
        daemon.kill()
        assert asking.wait(60) == 12
        said = asking.stderr.read()
        assert "went lost before it had answered" in said
        assert re.search(r"edgebit ask --device pi --get [0-9a-f]{16}$", said.strip())


def test_a_request_that_the_broker_refuses(mosquitto, ears, ask, tmp_path):
    """Said at once, by the name that may not."""
    (tmp_path / "acl").write_text("topic read #\ntopic write edgebit/v1/pi/availability\n")
    broker = mosquitto(f"allow_anonymous true\nacl_file {tmp_path}/acl")
    ears(broker.port).say("edgebit/v1/pi/availability", {"state": "online"}, retain=True)

    refused = ask("--device", "pi", "say 1", "--principal", "alice", url=broker.url)

    assert refused.returncode == 10 and "--principal" in refused.stderr
    assert "alice may not publish to edgebit/v1/pi/in/alice/" in refused.stderr and "Not authorized" in refused.stderr


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
        assert asking.wait(60) == 130
    last = json.loads(ear.until(lambda message: b'"done"' in message.payload).payload)
    assert last["error"]["code"] == "cancelled"


class InterruptedFinaliser:
    """Ctrl-C at a place where Python prints an exception and forgets it."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_not_lost_in_a_finaliser(broker):
    """It waits where the client waits next, and the handler before is back afterwards."""
    before = signal.getsignal(signal.SIGINT)
    with DeviceClient(parse_broker_url(broker.url)) as client:
        with pytest.raises(KeyboardInterrupt), interrupting(client):
            InterruptedFinaliser()
            began = time.monotonic()
            client.devices(200)
        assert time.monotonic() - began < 100
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_is_raised_at_once(broker):
    """Where the first one waits for something that does not come."""
    with DeviceClient(parse_broker_url(broker.url)) as client, interrupting(client):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_list(ready, ask, broker, ears):
    """Devices by what the broker has retained."""
    assert "knows no device" in ask("--list").stdout
    ready().kill()
    until_availability(broker, ears, "lost")
    assert ask("--list").stdout.split("\n")[1].split()[:2] == ["pi", "lost"]
    row = json.loads(ask("--list", "--json").stdout)[0]
    assert (row["device"], row["availability"], row["info"]["model"]["name"]) == ("pi", "lost", "fake")


def test_the_list_takes_anything_that_somebody_published(broker, ask):
    """A broker keeps what anybody retains there: it is shown as it is, and never obeyed."""
    published = {"x/availability": '{"state":"[/red]"}', "x/info": '{"model":"m"}', "y/info": "[]"}
    multiple([(f"edgebit/v1/{topic}", payload, 1, True) for topic, payload in published.items()], port=broker.port)

    done = ask("--list")

    assert (done.returncode, done.stdout.splitlines()[-1].split()) == (0, ["x", "[/red]"])


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("info", '{"model":"x"}'),
        ("info", '{"model":{"name":["x"]}}'),
        ("info", '{"model":{"name":"\\ud800"}}'),
        ("info", '{"model":' + "[" * 2000 + "]" * 2000 + "}"),
        ("status", '{"state":"\\udc00","tok_s_now":1}'),
        ("status", '{"state":{"a":1},"tok_s_now":NaN,"t_soc":1e999}'),
        ("status", '{"state":null,"tok_s_now":1' + "0" * 400 + ',"t_soc":true}'),
        ("status", "3"),
        ("info", "not JSON"),
    ],
)
def test_the_list_survives_odd_values(broker, ask, kind, payload):
    """Nothing that JSON, or no JSON, can hold makes it raise; neither as a table nor as JSON."""
    online = ("edgebit/v1/x/availability", '{"state":"online"}', 1, True)
    multiple([online, (f"edgebit/v1/x/{kind}", payload, 1, True)], port=broker.port)

    table, listed = ask("--list"), ask("--list", "--json")

    assert (table.returncode, table.stderr, table.stdout.splitlines()[-1].split()[:2]) == (0, "", ["x", "online"])
    assert json.loads(listed.stdout)[0]["device"] == "x" and "NaN" not in listed.stdout


def test_control_characters_are_shown_not_obeyed(broker, ask, ears):
    """Of whoever can publish: in a name, a state, an answer, and an error."""
    evil = "\x1b]0;owned\x07\x9b2J\r"
    shown = "\\x1b]0;owned\\x07\\x9b2J\\x0d"
    state, model = json.dumps({"state": "online"}), json.dumps({"model": {"name": f"m{evil}"}})
    status = json.dumps({"state": f"s{evil}"})
    retained = {"availability": state, "info": model, "status": status}
    multiple([(f"edgebit/v1/x/{topic}", text, 1, True) for topic, text in retained.items()], port=broker.port)
    assert [f"s{shown}", f"m{shown}"] == ask("--list", COLUMNS="200").stdout.splitlines()[-1].split()[2:]

    ear = ears(broker.port, "edgebit/v1/x/in/#")

    def answer(client, userdata, message):
        asked = json.loads(message.payload)
        frame = {"id": asked["id"], "seq": 0, "done": True}
        if asked["prompt"] == "fail":
            frame["error"] = {"status": 500, "code": "engine", "message": evil}
        else:
            frame["text"] = f"a\tb\n{evil}"
        client.publish(message.properties.ResponseTopic, json.dumps(frame), 1)

    ear.client.on_message = answer
    assert ask("--device", "x", "hi", "--no-stream").stdout == f"a\tb\n{shown}\n"
    failed = ask("--device", "x", "fail")
    assert failed.returncode == 11 and shown in failed.stderr and "\x1b" not in failed.stderr


@pytest.fixture
def guarded(mosquitto, tmp_path, require_tool):
    """The address of a broker that wants the password of user `pi`."""
    (tmp_path / "passwords").write_text("pi:s3cret\n")
    subprocess.run([require_tool("mosquitto_passwd"), "-U", str(tmp_path / "passwords")], check=True)
    broker = mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    return broker.url.replace("mqtt://", "mqtt://pi@")


def test_the_password_is_on_no_command_line(ask, guarded, tmp_path):
    """From a file or the environment; where it stands in --broker all the same, that is said."""
    (tmp_path / "password").write_text("s3cret\n")
    from_file = ask("--list", "--password-file", str(tmp_path / "password"), url=guarded)
    assert (from_file.returncode, from_file.stderr) == (0, "")
    assert ask("--list", url=guarded, EDGEBIT_MQTT_PASSWORD="s3cret").returncode == 0
    refused = ask("--list", url=guarded)
    assert refused.returncode == 10 and "--password-file" in refused.stderr
    exposed = ask("--list", "--broker", guarded.replace("pi@", "pi:s3cret@"))
    assert exposed.returncode == 0 and "can be seen by others" in exposed.stderr and "s3cret" not in exposed.stderr
    without_user = ask("--list", "--password-file", str(tmp_path / "password"))
    assert without_user.returncode == 10 and "USER@HOST" in without_user.stderr


def test_a_terminal_is_asked_for_the_password(guarded):
    """Not shown while it is typed, nor printed to standard output."""
    argv = [sys.executable, "-m", "edgebit", "ask", "--list", "--broker", guarded]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, argv)
    said = b""
    while b"Password of pi" not in said:
        said += os.read(terminal, 1024)
    os.write(terminal, b"s3cret\n")
    try:
        while more := os.read(terminal, 1024):
            said += more
    except OSError:  # how a terminal says that its program has ended
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, said
    assert b"knows no device" in said and b"s3cret" not in said


@both
def test_a_broker_that_says_nothing(ask, protocol):
    """The time-out holds for the broker too, and the words are what happened."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        done = ask("--device", "pi", "hi", "--timeout", "2", "--protocol", protocol, url=url)
        fallen_back = ask("--list", "--timeout", "2", url=url)
    assert done.returncode == fallen_back.returncode == 10
    assert "said nothing for 2 s" in done.stderr and "said nothing for 2 s" in fallen_back.stderr


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
        (["--device", "pi", "--pool", "kitchen"], 2, "--device and --pool are given both"),
    ],
)
def test_what_no_topic_can_be_is_refused(ask, arguments, code, promised):
    """Before anything is sent, in words that say what is allowed."""
    done = ask(*arguments, "hi")
    assert done.returncode == code and promised in done.stderr and "Traceback" not in done.stderr


@both
def test_many_questions(ready, ask, tmp_path, protocol):
    """One a line, or JSON; more than the device takes at once; a table of all, and exit code 11 where one failed."""
    ready(toml="[limits]\nmax_batch = 2")
    file = tmp_path / "questions"
    file.write_text('say 1\n\n{"prompt":"say 3","id":"own","max_tokens":2}\nsay 3\n')
    done = ask("--device", "pi", "--batch", str(file), "--protocol", protocol)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(row[0], row[2:]) for row in rows] == [
        ("1", ["200", "1", "w0"]),
        ("2", ["200", "2", "w0", "w1"]),
        ("3", ["200", "3", "w0", "w1", "w2"]),
    ]
    assert rows[1][1] == "own"
    failed = ask("--device", "pi", "--batch", "-", "--json", "--max-tokens", "1", text="say 3\nlong\nsay 2")
    assert failed.returncode == 11 and "1 of 3 questions failed on pi" in failed.stderr
    replies = {reply["number"]: reply for reply in map(json.loads, failed.stdout.splitlines())}
    assert (replies[1]["text"], replies[3]["text"]) == ("w0 ", "w0 ")
    assert replies[2]["error"]["code"] == "context_overflow"


def test_files_of_questions_that_are_none(ask):
    """A wrong line is named, and nothing is asked."""
    for text, said in (
        ("hi\n{broken", "line 2 begins with {"),
        ("\n \n", "no question in it"),
        ("{} \n[1]\n{1}", "line 3"),
    ):
        wrong = ask("--device", "pi", "--batch", "-", text=text)
        assert wrong.returncode == 2 and said in wrong.stderr, wrong.stderr
    assert ask("--device", "pi", "hi", "--get", "x").returncode == 2
    assert ask("--get", "x").returncode == 2


def test_an_answer_of_before(ready, ask, broker, ears):
    """Its text, in as many parts as the broker's packets need; what is still in the making has exit code 12."""
    ready()
    ear = ears(broker.port, "edgebit/v1/pi/out/#")
    ear.say("edgebit/v1/pi/in/alice/generate", {"id": "j", "prompt": "bytes"})
    ear.next()
    alice = ("--device", "pi", "--principal", "alice", "--get")
    assert ask(*alice, "j").stdout == "é€𝄞z\n"
    assert json.loads(ask(*alice, "j", "--json").stdout)["state"] == "done"
    unknown = ask(*alice, "never")
    assert unknown.returncode == 11 and "404 unknown_job" in unknown.stderr
    ear.say("edgebit/v1/pi/in/alice/generate", {"id": "slow", "prompt": "slow 1000", "max_tokens": 1000})
    running = ask(*alice, "slow")
    assert running.returncode == 12 and "slow is running on pi" in running.stderr
    ear.say("edgebit/v1/pi/in/alice/cancel", "slow")


def test_large_answers_come_in_parts(mosquitto, daemons, ears, ask):
    """Alone and in a batch, whatever the broker's Maximum Packet Size."""
    broker = mosquitto("allow_anonymous true\nmax_packet_size 2500")
    daemons(broker.url, toml="[defaults]\nmax_tokens = 2000")
    ears(broker.port, "edgebit/v1/pi/status").until(lambda message: b'"ready"' in message.payload)
    text = "".join(f"w{n} " for n in range(1500))
    done = ask("--device", "pi", "--batch", "-", "--json", text="say 1500", url=broker.url)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    assert reply["text"] == text
    assert ask("--device", "pi", "--get", reply["job"], url=broker.url).stdout == text + "\n"


def test_ctrl_c_cancels_a_batch(ready, broker, ears):
    """130 for the shell, and what is left of the batch is cancelled on the device."""
    ready(toml="[engine]\nsequences = 1")
    ear = ears(broker.port, "edgebit/v1/pi/out/#")
    argv = [sys.executable, "-m", "edgebit", "ask", "--device", "pi", "--batch", "-", "--json", "--broker", broker.url]
    argv += ["--max-tokens", "1000"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, **pipes, text=True, cwd=ROOT) as asking:
        asking.stdin.write("say 1\nslow 1000\nslow 1000\n")
        asking.stdin.close()
        assert json.loads(asking.stdout.readline())["text"] == "w0 "
        asking.send_signal(signal.SIGINT)
        assert asking.wait(60) == 130
    summary = json.loads(ear.until(lambda message: b'"op":"batch"' in message.payload).payload)
    assert [item["status"] for item in summary["items"]] == [200, 499, 499]
