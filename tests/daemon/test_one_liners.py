"""The commands of docs/mqtt.md as they stand there, with mosquitto's own clients, against the real engine."""

import json
import re
import select
import subprocess

import pytest
from mqtt_fixtures import ROOT, VALIDATORS

MARK = b"~"  # that no answer below begins with
CONTRACT = (ROOT / "docs" / "mqtt.md").read_text()


def commands(kind: str) -> list[str]:
    """The lines of the fenced blocks of one kind."""
    return [
        line
        for found, block in re.findall(r"^```(sh.*?)\n(.*?)^```", CONTRACT, re.DOTALL | re.MULTILINE)
        if found == kind
        for line in block.splitlines()
    ]


def at(port: int, command: str) -> str:
    """The command with the test's broker put in."""
    program, rest = command.split(" ", 1)
    return f"exec {program} -h 127.0.0.1 -p {port} {rest}"


@pytest.fixture
def pi5(mosquitto, daemons, ears, reference_model, require_tool):
    """A device with the real engine on a small reference model; gives its broker's port."""
    for tool in ("mosquitto_rr", "mosquitto_pub", "mosquitto_sub"):
        require_tool(tool)
    broker = mosquitto()
    daemons(broker.url, name="pi5", bundle=reference_model("bitnet-packed"))
    ear = ears(broker.port, "edgebit/v1/pi5/status")
    ear.until(lambda message: json.loads(message.payload)["state"] == "ready")
    return broker.port


def test_there_are_one_liners():
    """A change of the document's form must not leave the tests below with nothing to do."""
    assert (len(commands("sh")), len(commands("sh live")), len(commands("sh retained"))) == (9, 2, 3)


def test_one_liners_are_answered(pi5):
    """Each command ends with one reply of the form that the schema promises; none is an error."""
    for command in commands("sh"):
        done = subprocess.run(["sh", "-c", at(pi5, command)], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr!r}"
        if "mosquitto_rr" in command:
            reply = json.loads(done.stdout)
            VALIDATORS["reply"].validate(reply)
            assert reply["t"] == "done", f"{command}\n{reply}"


def test_retained_topics_can_be_read(pi5):
    """The list of devices, their states, and what one of them can do."""
    states, status, info = (
        subprocess.run(["sh", "-c", at(pi5, command)], capture_output=True, timeout=30, check=False).stdout.decode()
        for command in commands("sh retained")
    )
    assert states == 'edgebit/v1/pi5/availability {"state":"online","conn":1}\n'
    assert json.loads(status.splitlines()[0].split(" ", 1)[1])["state"] == "ready"
    body = json.loads(info)
    assert body["model"]["vocab_size"] == 512 and body["engine"]["isa"] and body["ops"][0] == "generate"


def hear_marks(pi5, heard):
    """Until the terminal hears what is said: mosquitto_sub says nothing once it has subscribed."""
    say = at(pi5, f"mosquitto_pub -q 1 -t edgebit/v1/pi5/out/alice/s1 -m '{MARK.decode()}'")
    for _ in range(60):
        subprocess.run(["sh", "-c", say], check=True, timeout=30)
        if select.select([heard], [], [], 0.5)[0]:
            return
    raise AssertionError("the terminal hears nothing")


def test_a_live_terminal(pi5):
    """Bare text arrives in pieces, equal to what one reply holds for the same seed."""
    listen, publish = (at(pi5, command) for command in commands("sh live"))
    body = json.loads(re.search(r"-m '(.*)'", publish).group(1))
    seeded = publish.replace(json.dumps(body, separators=(",", ":")), json.dumps({**body, "seed": 7, "cache": False}))
    topic = "mosquitto_rr -V mqttv5 -q 1 -W 60 -t edgebit/v1/pi5/in/alice/generate -e edgebit/v1/pi5/out/alice/me"
    whole = json.dumps({**body, "id": "s2", "stream": False, "format": "frames", "seed": 7})
    done = subprocess.run(["sh", "-c", at(pi5, f"{topic} -m '{whole}'")], capture_output=True, check=True, timeout=60)
    reply = json.loads(done.stdout)
    assert reply["usage"]["completion_tokens"] == 16
    text = reply["text"].encode()
    with subprocess.Popen(["sh", "-c", listen], stdout=subprocess.PIPE, bufsize=0) as terminal:
        hear_marks(pi5, terminal.stdout)
        subprocess.run(["sh", "-c", seeded], check=True, timeout=30)
        heard = b""
        while len(heard.lstrip(MARK)) < len(text) and select.select([terminal.stdout], [], [], 30)[0]:
            heard += terminal.stdout.read(4096)
        terminal.terminate()
        heard += terminal.stdout.read()
    assert heard.lstrip(MARK) == text
