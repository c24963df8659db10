"""The daemon's connection: coming, going, coming back, and being refused."""

import errno
import json
import random
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from edgebit.daemon.connection.backoff import CAP_S, STABLE_S, Backoff
from edgebit.daemon.connection.connection_counter import ConnectionCounter
from edgebit.errors import ConfigError

AVAILABILITY = "edgebit/v1/pi/availability"
IN, OUT = "edgebit/v1/pi/in/alice", "edgebit/v1/pi/out/alice"
both = pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])


def protocol(mqtt5):
    return f'protocol = "{"5" if mqtt5 else "3.1.1"}"'


@both
def test_a_clean_stop_says_offline(ready, broker, ears, mqtt5):
    """SIGTERM ends the daemon with 0; running and waiting jobs are answered, and `offline` is the last word."""
    daemon = ready(mqtt=protocol(mqtt5), toml="[engine]\nsequences = 1\n[serving]\ndrain_s = 0")
    ear = ears(broker.port, AVAILABILITY, f"{OUT}/#")
    assert json.loads(ear.next().payload) == {"state": "online", "conn": 1}
    ear.say(f"{IN}/generate", {"id": "running", "prompt": "slow 1000", "max_tokens": 1000, "stream": True})
    ear.next()
    ear.say(f"{IN}/generate", {"id": "waiting", "prompt": "say 1", "ack": True})
    ear.until(lambda message: json.loads(message.payload).get("t") == "ack")
    assert daemon.stop() == 0
    last = {}
    while True:
        message = ear.next()
        body = json.loads(message.payload)
        if message.topic == AVAILABILITY:
            break
        if body.get("done"):
            last[body["id"]] = body["error"]
    assert body == {"state": "offline", "conn": 1}
    assert {name: (error["status"], error["code"]) for name, error in last.items()} == {
        "running": (503, "shutting_down"),
        "waiting": (503, "shutting_down"),
    }


@both
def test_a_killed_daemon_is_lost_and_comes_back(ready, broker, ears, mqtt5):
    """The will names the connection that was lost; the next one has the next number."""
    daemon = ready(mqtt=protocol(mqtt5))
    ear = ears(broker.port, AVAILABILITY)
    assert ear.next_json() == {"state": "online", "conn": 1}
    daemon.kill()
    assert ear.next_json() == {"state": "lost", "conn": 1}
    daemon.restart()
    assert ear.next_json() == {"state": "online", "conn": 2}


@both
def test_a_broker_that_goes_and_comes_back(ready, broker, ears, mqtt5):
    """The daemon connects again by itself, subscribes again, and sends all that is retained again."""
    ready(mqtt=protocol(mqtt5))
    broker.stop()
    time.sleep(0.5)
    broker.start()
    ear = ears(broker.port, "edgebit/v1/pi/+", f"{OUT}/#")
    seen = {}
    while not {"availability", "info", "status"} <= set(seen):
        message = ear.next(30)
        seen[message.topic.rpartition("/")[2]] = json.loads(message.payload)
    assert seen["availability"]["state"] == "online" and seen["availability"]["conn"] >= 2
    ear.say(f"{IN}/generate", "say 1")
    reply = ear.until(lambda message: message.topic.startswith(OUT))
    assert json.loads(reply.payload)["text"] == "w0 "


@both
def test_a_broker_that_hangs(ready, broker, ears, mqtt5):
    """A connection that is open and dead is noticed by the keep-alive, and made anew once the broker lives."""
    daemon = ready(mqtt="keepalive_s = 1\n" + protocol(mqtt5))
    broker.process.send_signal(signal.SIGSTOP)
    try:
        wait_for_log(daemon, "no connection to ")
    finally:
        broker.process.send_signal(signal.SIGCONT)
    ear = ears(broker.port, AVAILABILITY)
    ear.until(lambda message: json.loads(message.payload)["state"] == "online" and b'"conn":1' not in message.payload)


def test_an_answer_made_while_the_broker_is_away(ready, broker, ears):
    """It waits in the device and goes out at the next connection."""
    ready()
    ear = ears(broker.port, f"{OUT}/#")
    ear.say(f"{IN}/generate", {"id": "job", "prompt": "slow 20", "stream": True})
    ear.next()
    broker.stop()
    broker.start()
    ear = ears(broker.port, f"{OUT}/#")
    last = json.loads(ear.until(lambda message: b'"done"' in message.payload).payload)
    assert len(last["text"].split()) == 20


def test_requests_of_a_short_absence_are_kept_under_mqtt5(ready, broker, ears):
    """The session outlives the daemon's process; those whose deadline has passed meanwhile are not run."""
    daemon = ready()
    daemon.kill()
    ear = ears(broker.port, f"{OUT}/#")
    ear.say(f"{IN}/generate", {"id": "late", "prompt": "say 1"}, MessageExpiryInterval=1)
    ear.say(f"{IN}/generate", {"id": "kept", "prompt": "say 2"}, MessageExpiryInterval=60)
    time.sleep(3)  # mosquitto counts in whole seconds and drops a message only once its own second is past
    daemon.restart()
    assert ear.next_json()["id"] == "kept"
    assert ear.silent()


def test_answers_too_large_for_the_broker(mosquitto, daemons, ears):
    """The broker's Maximum Packet Size is kept to: it would end the connection of who sends more."""
    broker = mosquitto("allow_anonymous true\nmax_packet_size 2500")
    daemons(broker.url, toml="[defaults]\nmax_tokens = 1000")
    ear = ears(broker.port, AVAILABILITY, "edgebit/v1/pi/info", f"{OUT}/#")
    info = ear.until(lambda message: message.topic.endswith("info"))
    assert json.loads(info.payload)["limits"]["max_packet_bytes"] == 2500
    ear.say(f"{IN}/generate", {"id": "one", "prompt": "say 800"})
    reply = json.loads(ear.until(lambda message: message.topic.startswith(OUT)).payload)
    assert (reply["error"]["status"], reply["error"]["code"]) == (413, "answer_too_large")
    ear.say(f"{IN}/generate", {"id": "two", "prompt": "say 800", "stream": True})
    frames = [json.loads(ear.until(lambda message: message.topic.startswith(OUT)).payload)]
    while not frames[-1].get("done"):
        frames.append(ear.next_json())
    assert "text" not in frames[-1] and frames[-1]["t"] == "done"
    assert len("".join(frame["d"] for frame in frames[:-1]).split()) == 800


def test_a_broker_that_takes_one_message_at_a_time(mosquitto, daemons, ears):
    """A smaller Receive Maximum is learnt and kept to; long streams still come whole."""
    broker = mosquitto("allow_anonymous true\nmax_inflight_messages 1")
    daemons(broker.url, toml="[defaults]\nmax_tokens = 1000")
    ear = ears(broker.port, "edgebit/v1/pi/status")
    status = json.loads(ear.until(lambda message: b'"ready"' in message.payload).payload)
    assert status["conn"] == 2, "once to learn it, once to keep to it"
    ear = ears(broker.port, f"{OUT}/#")
    ear.say(f"{IN}/generate", {"prompt": "say 800", "stream": True})
    frames = ear.frames()
    assert [frame["seq"] for frame in frames] == list(range(len(frames)))


def test_a_refused_password_is_not_tried_hot(mosquitto, daemons, tmp_path, require_tool):
    """It says so in the log, waits long, and comes in once the password is right after a restart."""
    (tmp_path / "passwords").write_text("pi:secret\n")
    subprocess.run([require_tool("mosquitto_passwd"), "-U", str(tmp_path / "passwords")], check=True)
    broker = mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    (tmp_path / "password").write_text("wrong\n")
    mqtt = f'user = "pi"\npassword_file = "{tmp_path / "password"}"'
    daemon = daemons(broker.url, mqtt=mqtt)
    text = wait_for_log(daemon, "next attempt in ")
    assert "Not authorized" in text or "Bad user name or password" in text
    wait_s = float(text.split("next attempt in ")[1].split()[0])
    assert wait_s >= CAP_S / 2
    assert daemon.stop() == 0
    (tmp_path / "password").write_text("secret\n")
    daemon.restart()
    wait_for_log(daemon, "connected to")


class ScriptedBroker:
    """Answers CONNECT and SUBSCRIBE with given bytes, or by closing; remembers the protocol levels it was asked for."""

    def __init__(self, connack, suback=None, after=b""):
        self.levels = []
        self._connack, self._suback, self._after = connack, suback, after
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                packet = connection.recv(4096)
                level = packet[packet.index(b"MQTT") + 4]
                self.levels.append(level)
                answer = self._connack(level)
                if answer is None:
                    continue
                connection.sendall(answer)
                subscribe = connection.recv(4096)
                if subscribe and self._suback is not None:
                    connection.sendall(b"\x90\x04" + subscribe[2:4] + self._suback + self._after)
                    connection.recv(4096)

    def close(self):
        self._server.close()


@pytest.fixture
def scripted():
    brokers = []

    def start(*arguments):
        brokers.append(ScriptedBroker(*arguments))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.close()


def wait_for_log(daemon, words, seconds=20):
    deadline = time.monotonic() + seconds
    while words not in (text := daemon.log.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return text


def test_a_refused_subscription_is_not_online(scripted, daemons):
    """A device that may not hear requests must not say that it can be asked; it waits long before it tries again."""
    broker = scripted(lambda level: b"\x20\x03\x00\x00\x00", b"\x00\x87")
    text = wait_for_log(daemons(broker.url), "next attempt in ")
    assert "refused the subscription to edgebit/v1/pi/in/+/+: Not authorized" in text
    assert float(text.split("next attempt in ")[1].split()[0]) >= CAP_S / 2
    assert "connected to" not in text


@pytest.mark.parametrize(
    "answer",
    [lambda level: b"\x20\x02\x00\x01", lambda level: b"\x20\x03\x00\x84\x00", lambda level: None],
    ids=["3.1.1 refusal", "5 refusal", "closed"],
)
def test_auto_falls_back_to_3_1_1(scripted, daemons, answer):
    """Where the broker does not speak MQTT 5, however it says so, the next attempt speaks 3.1.1."""
    broker = scripted(lambda level: answer(level) if level == 5 else b"\x20\x02\x00\x00", b"\x01")
    daemon = daemons(broker.url)
    wait_for_log(daemon, "trying 3.1.1")
    deadline = time.monotonic() + 60
    while 4 not in broker.levels:
        assert time.monotonic() < deadline, broker.levels
        time.sleep(0.05)
    assert broker.levels[0] == 5 and broker.levels[-1] == 4


def test_a_daemon_taken_over_does_not_fight(scripted, daemons):
    """Another client under the same id: this one gives way for a good while, and its log says why."""
    broker = scripted(lambda level: b"\x20\x03\x00\x00\x00", b"\x00\x01", b"\xe0\x02\x8e\x00")
    text = wait_for_log(daemons(broker.url), "next attempt in ")
    assert "Session taken over" in text
    assert float(text.split("next attempt in ")[1].split()[0]) >= CAP_S / 2


def throw_out(port, client_id):
    """Connect as another device of that name does, and be gone."""
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + bytes([0, len(client_id)]) + client_id.encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(bytes([0x10, len(body)]) + body)
        assert sock.recv(4) == b"\x20\x02\x00\x00"


def test_a_name_that_another_device_has_too_is_said(daemons, broker, ears):
    """Under 3.1.1 the broker says nothing: at the third time the log says what it may be, and time is given."""
    ear = ears(broker.port, AVAILABILITY)
    daemon = daemons(broker.url, mqtt=protocol(False))
    for number in (1, 2, 3):
        online = {"state": "online", "conn": number}
        ear.until(lambda message, online=online: json.loads(message.payload) == online)
        throw_out(broker.port, "edgebit-pi")
    text = wait_for_log(daemon, "perhaps another client connects as edgebit-pi: ")
    waits = [float(part.split()[0]) for part in text.split("next attempt in ")[1:]]
    assert max(waits[:2]) < CAP_S / 2 <= waits[2]


@both
def test_tls_and_a_certificate_of_its_own(mosquitto, daemons, ears, tmp_path, require_tool, mqtt5):
    """mqtts:// checks the broker's certificate and shows the device's."""
    openssl = require_tool("openssl")

    def run(*arguments):
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=tmp_path)

    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj",
        "/CN=test ca")  # fmt: skip
    for name in ("server", "device"):
        run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=pi")
        (tmp_path / "san").write_text("subjectAltName=IP:127.0.0.1")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "san", "-out", f"{name}.pem")  # fmt: skip
    broker = mosquitto(
        f"allow_anonymous true\ncafile {tmp_path}/ca.pem\ncertfile {tmp_path}/server.pem\n"
        f"keyfile {tmp_path}/server.key\nrequire_certificate true"
    )
    url = broker.url.replace("mqtt://", "mqtts://")
    files = f'ca = "{tmp_path}/ca.pem"\ncert = "{tmp_path}/device.pem"\nkey = "{tmp_path}/device.key"\n'
    daemon = daemons(url, mqtt=files + protocol(mqtt5))
    wait_for_log(daemon, "connected to")
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "device.pem", tmp_path / "device.key")
    ear = ears(broker.port, f"{OUT}/#", tls=context)
    ear.say(f"{IN}/generate", "say 1")
    assert ear.next_json()["text"] == "w0 "
    stranger = daemons(url, mqtt=protocol(mqtt5))  # without the ca the broker's certificate is not trusted
    wait_for_log(stranger, "certificate verify failed")


def test_delays_grow_and_are_drawn():
    """Full jitter: each delay lies between 0 and a limit that doubles to a minute."""
    backoff = Backoff(random.Random(1))
    delays = [[] for _ in range(9)]
    for _ in range(300):
        backoff.attempts = 0
        for drawn in delays:
            drawn.append(backoff.delay_s(connected_s=0, refused=False))
    for attempt, drawn in enumerate(delays):
        limit = min(CAP_S, 2.0**attempt)
        assert max(drawn) <= limit and max(drawn) > 0.9 * limit and min(drawn) < 0.25 * limit


def test_a_stable_minute_begins_anew():
    """A connection that held resets the limit; a short one does not, so a flapping broker is not hammered."""
    backoff = Backoff(random.Random(1), attempts=8)
    backoff.delay_s(connected_s=STABLE_S - 1, refused=False)
    assert backoff.attempts == 9
    assert backoff.delay_s(connected_s=STABLE_S, refused=False) <= 1.0


def test_a_refusal_waits_long_at_once():
    """Asking again will not change a wrong password."""
    backoff = Backoff(random.Random(1))
    assert all(CAP_S / 2 <= backoff.delay_s(connected_s=0, refused=True) <= CAP_S for _ in range(50))


def test_the_connection_counter_outlives_the_process(tmp_path):
    """Numbers are never used again, not even after the file was damaged."""
    path = tmp_path / "state" / "connection"
    assert [ConnectionCounter(path).next(), ConnectionCounter(path).next()] == [1, 2]
    path.write_text("\x00\x00")
    assert ConnectionCounter(path).next() > 2
    assert not list(path.parent.glob("*.part"))


def test_a_full_disk_makes_nobody_mute(tmp_path, monkeypatch):
    """The numbers are counted in memory then."""
    path = tmp_path / "state" / "connection"
    assert ConnectionCounter(path).next() == 1

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ConnectionCounter, "_write", refuse)
    assert ConnectionCounter(path).next() == 2


def test_a_state_folder_that_cannot_be_made(tmp_path):
    """Said at the start, not at the first connection."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        ConnectionCounter(tmp_path / "file" / "connection")
