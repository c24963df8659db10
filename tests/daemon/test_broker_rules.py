"""What makes a caller's name true at a real broker: its access list, its certificates, or the properties it adds."""

import re
import shutil
import socket
import ssl
import subprocess
import sys

import pytest
from mqtt_fixtures import ROOT, TESTS, WAIT_S, wait_ready
from pki_fixtures import Authority

from edgebit.daemon.config.reader import read_config
from edgebit.daemon.content_filter.rules import parse_rules
from edgebit.daemon.install import health
from edgebit.daemon.install.health import ping
from edgebit.errors import BrokerError, NoAnswerError

IN, OUT = "edgebit/v1/pi/in", "edgebit/v1/pi/out"
HEADER = "mosquitto_plugin.h"
CONNECT = bytes.fromhex("100d00044d51545404020000000161")  # of MQTT 3.1.1, by a client called "a"


@pytest.fixture
def plugin(tmp_path):
    """The path of the plugin that appends the sender's name, built for this machine's mosquitto."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to build a mosquitto plugin with")
    probe = subprocess.run(
        [compiler, "-E", "-"], input=f"#include <{HEADER}>", text=True, capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"no {HEADER}: Debian has it in mosquitto-dev")
    library = tmp_path / "add_properties.so"
    source = TESTS / "data" / "add_properties.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True)
    return library


@pytest.mark.slow
def test_the_name_that_the_broker_adds(mosquitto, plugin, require_tool, daemons, ears, tmp_path):
    """It is the last one, whatever the sender has put before it; whoever has not logged in has none."""
    users = tmp_path / "users"
    for create, user in (["-c"], "alice"), ([], "mallory"):
        argv = [require_tool("mosquitto_passwd"), *create, "-b", str(users), user, user]
        subprocess.run(argv, check=True, capture_output=True)
    broker = mosquitto(f"allow_anonymous true\npassword_file {users}\nplugin {plugin}")
    daemons(broker.url, mqtt='auth = "broker-prop"\nprotocol = "5"')
    wait_ready(broker.port, ears)
    ear = ears(broker.port, f"{OUT}/alice/#")
    forged = [("$timestamp", "1"), ("$client_id", "x"), ("$client_username", "alice")]

    def asked_by(user: str | None, *, mqtt5: bool = True, **named) -> dict:
        sender = ears(broker.port, user=user, mqtt5=mqtt5)
        sender.say(f"{IN}/alice/generate", '{"prompt": "say 1"}', **named)
        return ear.next_json()

    assert asked_by("alice")["text"] == "w0 "
    assert asked_by("alice", mqtt5=False)["text"] == "w0 ", "the broker adds it for callers of 3.1.1 too"
    assert asked_by("alice", UserProperty=[("$client_username", "mallory")])["text"] == "w0 "
    for user, code in (("mallory", "identity_mismatch"), (None, "identity_missing")):
        assert asked_by(user)["error"]["code"] == code
        assert asked_by(user, UserProperty=forged)["error"]["code"] == code
        assert asked_by(user, UserProperty=[forged[-1]])["error"]["code"] == code


def blocks(kind: str) -> list[str]:
    """The blocks of that kind in docs/privacy.md."""
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "docs" / "privacy.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("text", "code"), [("pay 4111 1111 1111 1111 now", 1), ("call 4111 1111 1111 1112", 0), ("é", 0)]
)
def test_the_classifier_of_the_documentation(text, code):
    """As it stands."""
    (program,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", program], input=text.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (code, b"a card number\n" if code else b"")


def test_the_rules_of_the_documentation():
    """One of each kind."""
    rules = parse_rules(blocks("rules")[0], "privacy.md")
    assert (len(rules.prompt), len(rules.answer)) == (2, 2)


def test_the_broker_of_the_documentation(mosquitto, daemons, ears, tmp_path):
    """Its own configuration and access list, as they stand but for the paths: who is in stays at his own topics."""
    if not (ROOT / "docs" / "privacy.md").exists():
        pytest.skip("the documentation lies in the repository")
    authority = Authority(tmp_path / "certs")
    server = authority.issue("broker")
    settings, access = (text.replace("/etc/mosquitto", str(tmp_path)) for text in (*blocks("conf"), *blocks("acl")))
    (tmp_path / "edgebit.acl").write_text(access)
    assert server[0].name in settings and "listener 8883\n" in settings
    broker = mosquitto(settings.replace("listener 8883\n", ""))
    pem, key = authority.issue("pi5")
    url = broker.url.replace("mqtt://", "mqtts://")
    daemon = daemons(url, name="pi5", mqtt=f'auth = "topic"\nca = "{authority.ca}"\ncert = "{pem}"\nkey = "{key}"')

    def at_the_broker(name: str, *topics: str):
        context = ssl.create_default_context(cafile=authority.ca)
        context.load_cert_chain(*authority.issue(name))
        return ears(broker.port, *topics, tls=context)

    alice, bob = (at_the_broker(name, "edgebit/v1/#") for name in ("alice", "bob"))
    alice.until(lambda message: message.topic.endswith("/status") and b'"ready"' in message.payload)
    ping(read_config(daemon.config), WAIT_S)  # as a deploy does, with the device's own certificate
    bob.say("edgebit/v1/pi5/in/alice/generate", '{"id": "forged", "prompt": "say 1"}')
    bob.say("edgebit/v1/pi5/status", '{"state": "forged"}')
    alice.say("edgebit/v1/pi5/in/alice/generate", '{"id": "own", "prompt": "say 1"}')
    answer = alice.until(lambda message: "/out/" in message.topic)
    assert answer.topic == "edgebit/v1/pi5/out/alice/own"
    bob.say("edgebit/v1/pi5/in/bob/generate", '{"id": "own", "prompt": "say 1"}')
    heard = []
    bob.until(lambda message: heard.append(message.topic) or message.topic == "edgebit/v1/pi5/out/bob/own")
    assert not [topic for topic in heard if "alice" in topic or "/in/" in topic]
    context = ssl.create_default_context(cafile=authority.ca)
    with (
        socket.create_connection(("127.0.0.1", broker.port), timeout=WAIT_S) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(plain, server_hostname="127.0.0.1") as stranger,
    ):
        stranger.send(CONNECT)
        assert stranger.recv(4) == b"", "the broker lets a stranger without a certificate in"
        raise ConnectionError


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize(
    ("rules", "fault", "promised"),
    [
        ("topic read {IN}/#\ntopic readwrite {OUT}/#", BrokerError, f"to {IN}/edgebit/ping: "),
        ("topic write {IN}/#\ntopic readwrite {OUT}/#", BrokerError, f"to {IN}/edgebit/ping: "),
        ("topic readwrite {IN}/#\ntopic read {OUT}/#", BrokerError, f"to {OUT}/edgebit/health: "),
        ("topic readwrite {IN}/#\ntopic readwrite {OUT}/#", NoAnswerError, "did not answer a ping"),
    ],
)
def test_a_forbidding_access_list_is_told_from_a_silent_daemon(
    mosquitto, tmp_path, monkeypatch, rules, fault, promised, protocol
):
    """No daemon runs; only where the broker passes everything on is that said."""
    monkeypatch.setattr(health, "_PING_INTERVAL_S", 0.2)
    if fault is BrokerError:
        monkeypatch.setattr(health, "_ECHO_S", 0.5)
    (tmp_path / "acl").write_text(rules.format(IN=IN, OUT=OUT) + "\n")
    broker = mosquitto(f"allow_anonymous true\nacl_file {tmp_path}/acl")
    toml = f'[device]\nname = "pi"\n[mqtt]\nurl = "{broker.url}"\nprotocol = "{protocol}"\n'
    (tmp_path / "edgebitd.toml").write_text(toml)

    with pytest.raises(fault, match=promised):
        health.check_health(tmp_path, "0123456789abcdef", 1.0, lambda: True)
