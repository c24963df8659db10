"""The whole daemon: its disk fails, its clocks are set, its broker stops, its network thread stalls."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from mqtt_fixtures import IMPORTED, TESTS, DaemonProcess, wait_ready

IN, OUT = "edgebit/v1/pi/in/alice", "edgebit/v1/pi/out/alice"
EVENT = "edgebit/v1/pi/event"
YEAR = 365 * 86_400.0
both = pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])


class FaultyDaemon(DaemonProcess):
    """faulty_daemon.py."""

    def set(self, **faults):
        part = self.folder / "faults.part"
        part.write_text(json.dumps(faults))
        part.replace(self.folder / "faults")

    def _start(self):
        program = TESTS / "daemon" / "faulty_daemon.py"
        state, faults = self.folder / "state", self.folder / "faults"
        argv = [sys.executable, str(program), str(self.config), str(state), str(faults)]
        with self.log.open("ab") as log:
            paths = os.pathsep.join([IMPORTED["PYTHONPATH"], str(TESTS / "daemon")])
            return subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": paths})


@pytest.fixture
def faulty(broker, ears, tmp_path):
    """Starts a faulty daemon, ready, with nothing wrong yet."""
    with ExitStack() as stack:

        def start(folder=tmp_path / "faulty", **named):
            daemon = FaultyDaemon(folder, broker.url, **named)
            stack.callback(daemon.stop)
            wait_ready(broker.port, ears)
            return daemon

        yield start


@pytest.fixture
def small_disk(tmp_path, request):
    """A file system of 1 MiB; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def event(ear, name):
    return json.loads(ear.until(lambda message: message.topic == EVENT and name.encode() in message.payload).payload)


def ask(ear, fields):
    """Ask, and wait until the device says that it has taken the job on: it is on the disk then."""
    ear.say(f"{IN}/generate", {**fields, "ack": True})
    taken = ear.until(lambda message: message.topic == f"{OUT}/{fields['id']}")
    assert json.loads(taken.payload)["t"] == "ack"


def answer_to_a(ear):
    """Its last message; what came before it may come again, where the broker was gone before it had confirmed."""
    return ear.until(
        lambda message: message.topic == f"{OUT}/a" and json.loads(message.payload).get("done", False)
    ).payload


class InjectedFull:
    """A full disk as the daemon sees it."""

    def __init__(self, daemon):
        self._daemon = daemon

    def fill(self):
        self._daemon.set(errno={"posix_fallocate": errno.ENOSPC, "pwrite": errno.ENOSPC})

    def free(self):
        self._daemon.set()


class FilledDisk:
    """A full disk."""

    def __init__(self, folder):
        self._file = folder / "fill"

    def fill(self):
        with self._file.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))

    def free(self):
        self._file.unlink()


def check_full_disk(daemon, disk, broker, ears):
    """New work is refused, what runs is answered, and work is taken again as soon as there is room."""
    ear, events = ears(broker.port, f"{OUT}/#"), ears(broker.port, EVENT)
    ear.say(f"{IN}/generate", {"id": "running", "prompt": "slow 30", "stream": True})
    assert ear.next_json()["d"] == "w0 "
    disk.fill()
    for n in range(6):  # a few may still have the room that was laid in before
        ear.say(f"{IN}/generate", {"id": f"new{n}", "prompt": "slow 30", "max_tokens": 2048})
    lasts = {}
    while len(lasts) < 7:
        last = ear.until(lambda message: json.loads(message.payload).get("done"))
        lasts[last.topic.rpartition("/")[2]] = last.payload
    answers = {name: json.loads(payload) for name, payload in lasts.items()}
    assert len(answers["running"]["text"].split()) == 30
    refused = [answer["error"] for answer in answers.values() if "error" in answer]
    assert refused and {error["code"] for error in refused} == {"storage_full"}
    assert {(error["status"], error["type"], error["retryable"]) for error in refused} == {(503, "BUSY", True)}
    assert "No space left" in event(events, "storage_full")["message"]
    ear.say(f"{IN}/ping", {"reply_to": f"{OUT}/ping"})
    assert ear.next_json()["op"] == "ping"
    disk.free()
    event(events, "storage_restored")
    ear.say(f"{IN}/generate", {"id": "new5", "prompt": "say 3", "max_tokens": 2048})
    assert ear.next_json()["text"] == "w0 w1 w2 "
    daemon.kill()
    daemon.restart()
    wait_ready(broker.port, ears)
    ear.say(f"{IN}/generate", {"id": "running", "prompt": "slow 30", "stream": True})
    assert ear.until(lambda message: message.topic == f"{OUT}/running").payload == lasts["running"]


def test_a_full_disk_as_it_is_told(faulty, broker, ears):
    daemon = faulty()
    check_full_disk(daemon, InjectedFull(daemon), broker, ears)


@pytest.mark.slow
def test_a_full_disk(faulty, small_disk, broker, ears):
    check_full_disk(faulty(small_disk), FilledDisk(small_disk), broker, ears)


def test_a_disk_that_can_only_be_read(faulty, small_disk, broker, ears):
    """Nothing is taken on, and it is said why; what needs no memory is answered, and the connection is there."""
    subprocess.run(["umount", str(small_disk)], check=True)
    daemon = faulty(small_disk)
    assert daemon.stop() == 0
    for options in ("size=1m", "remount,ro"):
        command = ["mount", *(["-t", "tmpfs"] if "size" in options else []), "-o", options, "tmpfs"]
        subprocess.run([*command, str(small_disk / "state")], check=True)
    try:
        daemon.restart()
        wait_ready(broker.port, ears)
        ear = ears(broker.port, f"{OUT}/#")
        ear.say(f"{IN}/generate", {"prompt": "say 3"})
        refused = ear.next_json()["error"]
        assert (refused["status"], refused["code"], refused["type"]) == (503, "storage_fault", "BUSY")
        assert "Read-only" in refused["message"]
        ear.say(f"{IN}/ping", "")
        assert "Read-only" in ear.next_json()["last_error"]
        assert daemon.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(small_disk / "state")], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(small_disk)], check=True)  # for the fixture to unmount


@pytest.mark.slow
def test_a_disk_that_fails(faulty, broker, ears):
    """EIO at a sync: it is not acknowledged as taken, and all that runs is answered."""
    daemon = faulty()
    ear, events = ears(broker.port, f"{OUT}/#"), ears(broker.port, EVENT)
    ask(ear, {"id": "running", "prompt": "slow 40"})
    daemon.set(errno={"fdatasync": errno.EIO, "fsync": errno.EIO})
    ear.say(f"{IN}/generate", {"id": "new", "prompt": "say 3"})
    refused = ear.next_json()["error"]
    assert (refused["status"], refused["code"], refused["type"]) == (503, "storage_fault", "BUSY")
    assert "Input/output" in event(events, "storage_full")["message"]
    assert len(ear.next_json()["text"].split()) == 40
    daemon.set()
    event(events, "storage_restored")
    ear.say(f"{IN}/generate", {"id": "new", "prompt": "say 3"})
    assert ear.next_json()["text"] == "w0 w1 w2 "


@pytest.mark.slow
@pytest.mark.parametrize("wall_s", [10 * YEAR, -10 * YEAR])
def test_a_clock_that_is_set_while_it_runs(faulty, broker, ears, wall_s):
    """Nobody sees anything of it, over a restart of the daemon either."""
    daemon = faulty()
    ear = ears(broker.port, f"{OUT}/#")
    ask(ear, {"id": "a", "prompt": "slow 40"})
    daemon.set(clock=["boot", 0.0, wall_s])
    daemon.kill()
    daemon.restart()
    assert len(ear.next_json()["text"].split()) == 40
    daemon.set(clock=["boot", 0.0, -wall_s])
    ear.say(f"{IN}/generate", {"id": "b", "prompt": "say 2"})
    assert ear.next_json()["text"] == "w0 w1 "
    ear.say(f"{IN}/get", {"id": "a", "reply_to": f"{OUT}/get"})
    assert ear.next_json()["state"] == "done"


@pytest.mark.parametrize(
    ("wall_s", "code"), [(10 * YEAR, "expired"), pytest.param(-10 * YEAR, None, marks=pytest.mark.slow)]
)
def test_a_clock_that_is_wrong_after_a_reboot(faulty, broker, ears, wall_s, code):
    """A job is answered by the device's clock of then: as late at most, and never not at all."""
    daemon = faulty()
    ear, events = ears(broker.port, f"{OUT}/#"), ears(broker.port, EVENT)
    ask(ear, {"id": "a", "prompt": "slow 40"})
    daemon.kill()
    daemon.set(clock=["another boot", -time.monotonic(), wall_s])
    daemon.restart()
    assert event(events, "interrupted")["jobs"] == 1
    answer = ear.next_json()
    assert answer.get("error", {}).get("code") == code
    assert ("text" in answer) == (code is None)


@pytest.mark.parametrize(
    ("mqtt5", "persistence"),
    [(True, False), *[pytest.param(*each, marks=pytest.mark.slow) for each in ((True, True), (False, True))]],
)
def test_a_broker_that_restarts(mosquitto, daemons, ears, mqtt5, persistence, tmp_path):
    """Answers of the time between come once it is back; without its session the device says so."""
    folder = tmp_path / "store"
    folder.mkdir()
    settings = "allow_anonymous true\n"
    if persistence:
        settings += f"persistence true\npersistence_location {folder}/\n"
    broker = mosquitto(settings)
    daemon = daemons(broker.url, mqtt=f'protocol = "{"5" if mqtt5 else "3.1.1"}"')
    wait_ready(broker.port, ears)
    ear = ears(broker.port, f"{OUT}/#")
    ask(ear, {"id": "a", "prompt": "slow 40"})
    ear.close()
    broker.stop()
    broker.start()
    ear = ears(broker.port, f"{OUT}/#", EVENT)
    said = event(ear, "connected")
    assert said["session_present"] is (persistence and mqtt5)
    answer = answer_to_a(ear)
    assert len(json.loads(answer)["text"].split()) == 40
    ear.say(f"{IN}/generate", {"id": "a", "prompt": "slow 40", "ack": True})
    assert answer_to_a(ear) == answer
    assert daemon.stop() == 0


def test_requests_wait_at_the_broker(broker, daemons, ears):
    """Under MQTT 5, while the device is away; each is answered once."""
    daemon = daemons(broker.url)
    wait_ready(broker.port, ears)
    ear = ears(broker.port, f"{OUT}/#")
    daemon.kill()
    for n in range(5):
        ear.say(f"{IN}/generate", {"id": f"q{n}", "prompt": "say 2"})
    daemon.restart()
    assert sorted(ear.next_json()["id"] for _ in range(5)) == [f"q{n}" for n in range(5)]
    ear.say(f"{IN}/ping", "")
    assert ear.next_json()["op"] == "ping", "and nothing else before it"


@pytest.mark.slow
def test_a_network_thread_that_stalls(faulty, broker, ears):
    """The daemon ends, for its service manager to start it anew, and then what it had taken on is answered."""
    daemon = faulty()
    ear = ears(broker.port, f"{OUT}/#")
    ask(ear, {"id": "a", "prompt": "slow 40"})
    daemon.set(stalled=True)
    assert daemon.process.wait(60) == 9, "an engine's fault, as for all dead threads"
    daemon.set()
    daemon.restart()
    assert len(ear.next_json()["text"].split()) == 40


@pytest.mark.slow
@both
def test_a_broker_that_hangs(broker, daemons, ears, mqtt5):
    """Stopped for longer than the keepalive: the device gives the connection up, and answers once it is back."""
    protocol = f'protocol = "{"5" if mqtt5 else "3.1.1"}"'
    daemon = daemons(broker.url, mqtt=f"{protocol}\nkeepalive_s = 5")
    wait_ready(broker.port, ears)
    ear = ears(broker.port, f"{OUT}/#", EVENT)
    ask(ear, {"id": "a", "prompt": "slow 40"})
    broker.process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 40
    while "Keep alive timeout" not in daemon.log.read_text():
        assert time.monotonic() < deadline, daemon.log.read_text()
        time.sleep(0.1)
    broker.process.send_signal(signal.SIGCONT)
    answers = [answer_to_a(ear)]
    wait_ready(broker.port, ears)
    ear.say(f"{IN}/generate", {"id": "a", "prompt": "slow 40", "ack": True})
    answers.append(answer_to_a(ear))
    assert len(set(answers)) == 1 and len(json.loads(answers[0])["text"].split()) == 40
