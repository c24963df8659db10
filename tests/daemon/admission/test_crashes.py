"""A daemon dies at any step of its journal: no job is lost, none is answered twice differently, nothing is stuck."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict

import pytest
from mqtt_fixtures import IMPORTED, TESTS, Ear, check_schema

from edgebit.daemon.admission import journal_records
from edgebit.daemon.admission.record_file import RecordFile

WAIT_S = 60
WAVE = 24  # daemons at once
BATCH = {"items": [{"prompt": "say 2"}, {"prompt": "say 1"}, {"prompt": 7}]}
NAMED = {
    "plain": ("generate", {"prompt": "say 3"}),
    "stream": ("generate", {"prompt": "say 40", "stream": True, "max_tokens": 60}),
    "text": ("chat", {"prompt": "say 20", "stream": True, "format": "text"}),
    "b": ("batch", BATCH),
}
UNNAMED = {"anon": ("generate", {"prompt": "say 2"}), "nb": ("batch", {"items": [{"prompt": "say 2"}] * 2})}
# Of b.2, which is refused before it is a job, the summary tells at least.
TOPICS = {"plain", "stream", "text", "b", "b.0", "b.1"}


class Device:
    """What one daemon was asked, and what was heard of it."""

    def __init__(self, ear, name, mqtt5, lives):
        self.ear, self.name, self.mqtt5, self.lives = ear, name, mqtt5, lives
        self.asked = set()
        self.lasts = defaultdict(list)  # by topic and id, payloads of last frames
        self.deltas = defaultdict(list)  # by topic, sequence numbers
        self.ready_at = None  # the connection it was last ready on
        self.pong = None
        self.pinged = False

    @property
    def expected(self):
        return TOPICS | (set(UNNAMED) if self.mqtt5 else set())

    def say(self, name, op, fields):
        topic = f"edgebit/v1/{self.name}/in/alice/{op}"
        place = {"reply_to": f"edgebit/v1/{self.name}/out/alice/{name}"}
        self.ear.client.publish(topic, json.dumps(fields if name in NAMED else fields | place), 1)

    def ask(self, name):
        op, fields = (NAMED | UNNAMED)[name]
        self.asked.add(name)
        self.say(name, op, fields | ({"id": name} if name in NAMED else {}))

    def hear_status(self, body):
        if body["state"] not in ("ready", "busy") or body["conn"] == self.ready_at:
            return
        self.ready_at = body["conn"]
        for name in NAMED if not self.mqtt5 else NAMED | UNNAMED:
            # Under 3.1.1 requests do not wait for a device that is away: whoever hears nothing asks again.
            if name not in self.asked or (not self.mqtt5 and not self.heard(name)):
                self.ask(name)
        if not self.mqtt5:
            self.go_on()

    def heard(self, topic):
        ids = [job_id for place, job_id in self.lasts if place == topic]
        if topic == "nb":
            return len(ids) >= 3
        return bool(ids)

    def hear(self, topic, message):
        payload = message.payload
        if topic == "ping":
            self.pong = json.loads(payload)
        elif topic == "text":
            if payload == b"" or payload.startswith(b"["):
                self.lasts[topic, "text"].append(payload)
        elif (body := json.loads(payload)).get("done"):
            self.lasts[topic, body["id"]].append(payload)
        else:
            self.deltas[topic].append(body["seq"])
        self.go_on()

    def go_on(self):
        """Ask for `plain` again once it was answered, then, when all was heard, whether the device is well."""
        if (
            self.heard("plain")
            and len(self.lasts["plain", "plain"]) < 2
            and ("again" not in self.asked or not self.mqtt5)
        ):
            self.asked.add("again")
            self.ask("plain")
        if (
            all(self.heard(topic) for topic in self.expected)
            and len(self.lasts["plain", "plain"]) > 1
            and not self.pong
        ):
            self.say("ping", "ping", {})

    def check(self):
        for (topic, job_id), payloads in self.lasts.items():
            assert len(set(payloads)) == 1, (topic, job_id, payloads)
        ids = Counter(topic for topic, _ in self.lasts if topic != "b.2")
        assert ids == Counter(self.expected | {"nb"} if self.mqtt5 else self.expected) + Counter(
            {"nb": 2} if self.mqtt5 else {}
        ), f"one answer for each job: {dict(self.lasts)}"
        for topic in ("plain", "stream", "b.0", "b.1"):
            (last,) = {json.loads(payload)["seq"]: json.loads(payload) for payload in self.lasts[topic, topic]}.values()
            if "error" in last:
                assert last["error"]["code"] == "interrupted"
                assert last["seq"] > max(self.deltas[topic], default=-1)
            else:
                assert last["text"].split() == [
                    f"w{n}" for n in range({"plain": 3, "stream": 40, "b.0": 2, "b.1": 1}[topic])
                ]
        assert max(Counter(self.deltas["stream"]).values(), default=1) == 1, "no part of an answer is seen twice"
        summary = json.loads(self.lasts["b", "b"][0])
        if "error" not in summary:
            assert [item["id"] for item in summary["items"]] == ["b.0", "b.1", "b.2"]
            assert summary["items"][2] == {"id": "b.2", "status": 400, "code": "bad_field"}
        assert (self.pong["state"], self.pong["queue_len"], self.pong["last_error"]) == ("ready", 0, None)


class Crashes:
    """One broker, and daemons that die as they are told."""

    def __init__(self, broker, folder):
        self.folder = folder
        self.broker = broker
        self.ended = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "daemon" / "crash_daemon.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([IMPORTED["PYTHONPATH"], str(TESTS / "daemon")])},
        )
        threading.Thread(target=self._read, daemon=True).start()
        self.ear = Ear(broker.port, "edgebit/v1/+/out/alice/#", "edgebit/v1/+/status")

    def _read(self):
        for line in self.process.stdout:
            self.ended.put(json.loads(line))

    def _order(self, order):
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def close(self):
        self.ear.close()
        self.process.stdin.close()
        self.process.wait(WAIT_S)
        self.process.stdout.close()

    def run(self, cases):
        """All of (mqtt5, lives) at once; gives how each ended."""
        devices = {}
        for mqtt5, lives in cases:
            device = Device(self.ear, f"d{len(list(self.folder.iterdir()))}", mqtt5, lives)
            devices[device.name] = device
            folder = self.folder / device.name
            (folder / "state").mkdir(parents=True)
            (folder / "edgebitd.toml").write_text(
                f'[device]\nname = "{device.name}"\n[mqtt]\nurl = "{self.broker.url}"\n'
                f'protocol = "{"5" if mqtt5 else "3.1.1"}"\n[report]\ninterval_s = 30.0\n'
                f'sensors_root = "{TESTS / "daemon" / "roots" / "pc"}"\n'
            )
            order = {"name": device.name, "config": str(folder / "edgebitd.toml"), "state": str(folder / "state")}
            self._order({**order, "lives": lives})
        deadline = time.monotonic() + WAIT_S
        while any(device.pong is None for device in devices.values()):
            self._hear(devices, deadline)
        for name in devices:
            self._order({"stop": name})
        ended = [self.ended.get(timeout=WAIT_S) for _ in devices]
        for device in devices.values():
            self._check(device)
        assert {end["code"] for end in ended} == {0}
        return ended

    def _hear(self, devices, deadline):
        try:
            message = self.ear.heard.get(timeout=max(0.01, deadline - time.monotonic()))
        except queue.Empty:
            stuck = [
                (device.name, device.mqtt5, device.lives, sorted(device.lasts))
                for device in devices.values()
                if device.pong is None
            ]
            raise AssertionError(f"stuck: {stuck}") from None
        check_schema(message.topic, message.payload)
        parts = message.topic.split("/")
        device = devices.get(parts[2])
        if device is None:
            return
        if parts[3] == "status":
            device.hear_status(json.loads(message.payload))
        else:
            device.hear(parts[5], message)

    def _check(self, device):
        try:
            device.check()
            file, records, damaged = RecordFile.open(self.folder / device.name / "state" / "journal")
            file.close()
            entries, unknown = journal_records.read_back(records)
            assert (damaged, unknown) == (0, 0)
            assert all(entry.ended is not None for entry in entries.values())
        except AssertionError as error:
            log = (self.folder / device.name / "log").read_text()
            raise AssertionError(f"{device.name}, MQTT 5: {device.mqtt5}, {device.lives}: {error}\n{log}") from error


@pytest.fixture
def crashes(broker, tmp_path):
    crashes = Crashes(broker, tmp_path / "devices")
    (tmp_path / "devices").mkdir()
    yield crashes
    crashes.close()


def test_a_few_steps(crashes):
    """A sample of the next test."""
    (whole,) = crashes.run([(True, [])])
    assert whole["steps"] > 40
    every = range(1, whole["steps"], max(1, whole["steps"] // 6))
    ended = crashes.run(
        [(n % 2 == 0, [{"die_at": step, "how": ("kill", "torn", "power")[n % 3]}]) for n, step in enumerate(every)]
    )
    # A third life is one that SIGTERM met before its daemon heard signals.
    assert sum(end["lives"] >= 2 for end in ended) >= len(ended) - 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "torn", "power"])
@pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])
def test_every_step(crashes, mqtt5, how):
    """Every third one dies again while it takes up what the first has left."""
    (whole,) = crashes.run([(mqtt5, [])])
    cases = []
    for step in range(1, whole["steps"] + 1, 1 if mqtt5 or how == "kill" else 2):
        again = [{"die_at": step // 3, "how": how}] if step % 3 == 0 else []
        cases.append((mqtt5, [{"die_at": step, "how": how}, *again]))
    ended = [end for wave in range(0, len(cases), WAVE) for end in crashes.run(cases[wave : wave + WAVE])]
    died = sum(end["lives"] > 1 for end in ended)
    assert died > 0.8 * len(ended), "runs differ in a few steps, by what is committed together"
