"""Written down, then acknowledged, then run; and what a batch comes to over a crash."""

import base64
import dataclasses
import errno
import os

import pytest
from admission_fixtures import OUT, Device, question
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from serving_fixtures import wait_for

from edgebit.daemon.admission.signed_requests import envelope, text_to_sign
from edgebit.daemon.config.safeguards import IdentityConfig, RateLimitsConfig
from edgebit.daemon.config.sections import LimitsConfig, MqttConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.governor.levers import Levers


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path / "journal")
    yield device
    device.scheduler.stop()


def test_one_sync_then_all_acknowledgements_then_they_run(device, monkeypatch):
    sync, release = os.fdatasync, device.scheduler.release
    monkeypatch.setattr(os, "fdatasync", lambda handle: (device.steps.append("sync"), sync(handle)))
    monkeypatch.setattr(
        device.scheduler, "release", lambda jobs: (device.steps.append(("release", len(list(jobs)))), release(jobs))
    )
    device.take(question("a"), question("b"), ("generate", {"prompt": 7}), question("c"))
    assert device.steps == ["sync", ("ack", 1), ("ack", 2), ("ack", 3), ("ack", 4), ("release", 3)]


def test_what_needs_no_memory_is_not_synced(device, monkeypatch):
    monkeypatch.setattr(os, "fdatasync", lambda handle: device.steps.append("sync"))
    device.take(("ping", {}), ("tokenize", {"prompt": "a"}), ("generate", {"prompt": 7}))
    assert device.steps == [("ack", 1), ("ack", 2), ("ack", 3)]


def test_a_disk_that_fails_at_the_commit(device, monkeypatch):
    """All that came together are told, all are acknowledged, their places are free, and nothing of them is left."""

    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        patch.setattr(os, "fsync", fail)
        device.take(question("a"), ("batch", {"id": "b", "items": [{"prompt": "x"}, {"prompt": "y"}]}))
    assert {device.heard.bodies[f"{OUT}/{name}"]["error"]["code"] for name in ("a", "b.0", "b.1")} == {"storage_fault"}
    summary = device.heard.bodies[f"{OUT}/b"]
    assert (summary["answered"], summary["failed"]) == (0, 2)
    assert device.steps == [("ack", 1), ("ack", 2)]
    assert device.scheduler.load().queue_len == 0
    device.take(question("a"))
    assert device.run(f"{OUT}/a")[0]


def test_a_fault_of_ours_is_answered(device, monkeypatch):
    """And counted; it keeps no place and no other request of the same batch."""

    def fail(identity, place, asked, reserve):
        if asked.fields.get("prompt") == "bad":
            raise RuntimeError("a fault of ours")
        return accept(identity, place, asked, reserve)

    accept = device.journal.accept
    monkeypatch.setattr(device.journal, "accept", fail)
    bad, good = {"prompt": "bad", "max_tokens": 1}, {"prompt": "good", "max_tokens": 1}
    device.take(("generate", {"id": "a", **bad}), ("batch", {"id": "b", "items": [bad, good]}))
    assert device.heard.bodies[f"{OUT}/a"]["error"]["code"] == "internal"
    assert device.admission.counters["internal"] == 2 and device.scheduler.load().queue_len == 1
    (summary,) = device.run(f"{OUT}/b")
    assert [item["status"] for item in summary["items"]] == [500, 200]


def test_only_a_job_with_a_place_is_judged(device, monkeypatch):
    """A judge is a program of its own: a flood of what is refused starts none. Without one no job is taken."""
    judged = []
    monkeypatch.setattr(device.gate, "guard", lambda address, request: judged.append(address.id))
    device.scheduler.apply(Levers(admit=False))
    device.take(question("a"))
    assert device.heard.bodies[f"{OUT}/a"]["error"]["code"] == "hot" and judged == []
    device.scheduler.apply(Levers())
    device.take(question("a"))
    assert judged == ["a"]

    def fail(address, request):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(device.gate, "guard", fail)
    device.take(question("b"))
    assert device.heard.bodies[f"{OUT}/b"]["error"]["code"] == "internal"
    assert device.scheduler.load().queue_len == 1 and device.journal.entry("alice", "b") is None


def test_a_repeat_joins_and_replays(device):
    """In flight it waits with the first, at its own place; after the end it has the stored answer; its like is 409."""
    device.take(question("a"))
    device.take(question("a"), question("a", reply_to=f"{OUT}/other"), question("a", tokens=3))
    assert device.heard.bodies[f"{OUT}/a"]["error"]["code"] == "id_in_use"
    device.run(f"{OUT}/other")
    wait_for(lambda: device.heard.status[f"{OUT}/a"] == 200)
    first = device.heard.bodies[f"{OUT}/a"]
    device.take(question("a"))
    assert device.heard.bodies[f"{OUT}/a"] == first and device.heard.last[f"{OUT}/a"] == 3
    assert device.acceptance.counters["replayed"] == 1 and device.acceptance.counters["repeated"] == 1


def test_a_batch_of_before_a_crash(device):
    """Items that were answered stay so, the others are run, and the summary has all, whatever was refused at once."""
    items = [{"prompt": "x", "max_tokens": 1}, {"prompt": 7}, {"prompt": "y", "max_tokens": 2}]
    device.take(("batch", {"id": "b", "items": items}))
    assert device.heard.bodies[f"{OUT}/b.1"]["error"]["code"] == "bad_field"
    device.restart()
    assert device.recovered == 3, "two items and the batch itself"
    summary = device.run(f"{OUT}/b.0", f"{OUT}/b.2", f"{OUT}/b")[2]
    assert [(item["id"], item["status"]) for item in summary["items"]] == [("b.0", 200), ("b.1", 400), ("b.2", 200)]
    device.restart()
    assert device.recovered == 0
    assert device.heard.bodies[f"{OUT}/b"] == summary, "the broker has not confirmed it"


def test_an_item_that_is_refused_after_a_crash(device):
    """Its batch hears of it, although the item was asked for again, and so is taken up after the batch."""
    item = {"id": "x", "max_tokens": 2, "prompt": "x"}
    device.take(("batch", {"id": "b", "items": [item, {"id": "y", "max_tokens": 1, "prompt": "y"}]}))
    device.scheduler.cancel("alice", "x", Refusal(503, "hot", "too hot", retryable=True))
    device.take(("generate", item))
    device.config = dataclasses.replace(device.config, limits=LimitsConfig(max_tokens=1))
    device.restart()
    (summary,) = device.run(f"{OUT}/b")
    assert [(each["id"], each["status"]) for each in summary["items"]] == [("x", 400), ("y", 200)]


@pytest.mark.parametrize("batch_id", [{}, {"id": "b"}])
def test_a_batch_that_the_broker_sends_again(device, batch_id):
    """After a crash between the disk and the acknowledgement: nothing of it is run twice."""
    asked = ("batch", {**batch_id, "items": [{"prompt": "x"}, {"prompt": "y"}], "max_tokens": 2})
    device.take(asked)
    device.restart()
    device.take(asked, connection=2, dup=True)
    assert device.recovered == 3 and device.scheduler.load().queue_len == 2
    (batch,) = [entry.identity.id for entry, asked, _ in device.journal.unfinished() if asked.op == "batch"]
    (summary,) = device.run(f"{OUT}/{batch}")
    assert summary["answered"] == 2
    assert set(device.heard.last.values()) == {1} and len(device.heard.last) == 3


def test_a_batch_that_was_cut_in_two(device, monkeypatch):
    """A crash before the commit: the broker sends it again, and it is run as new, once."""
    asked = ("batch", {"items": [{"prompt": "x"}, {"prompt": "y"}], "max_tokens": 2})
    monkeypatch.setattr(device.journal, "commit", lambda: None)
    device.take(asked)
    device.restart()
    assert device.recovered == 0
    device.take(asked, connection=2, dup=True)
    (batch,) = [entry.identity.id for entry, asked, _ in device.journal.unfinished() if asked.op == "batch"]
    assert device.run(f"{OUT}/{batch}")[0]["answered"] == 2
    assert len(device.heard.last) == 3


def test_a_job_that_was_in_flight_at_too_many_crashes(device):
    """It may be their cause."""
    device.take(question("a"))
    for _ in range(3):
        device.restart()
        assert f"{OUT}/a" not in device.heard.bodies
    device.restart()
    error = device.heard.bodies[f"{OUT}/a"]["error"]
    assert (error["status"], error["code"], error["retryable"]) == (500, "interrupted", True)


def test_a_batch_that_was_in_flight_at_too_many_crashes(device):
    device.take(("batch", {"id": "b", "items": [{"prompt": "x", "max_tokens": 1}]}))
    for _ in range(3):
        device.restart()
        assert f"{OUT}/b" not in device.heard.bodies
    device.restart()
    assert device.heard.bodies[f"{OUT}/b"]["error"]["code"] == "interrupted"
    assert not device.admission.batches.has(("alice", "b"))


def test_without_its_session_a_broker_sends_nothing_again(device):
    """What looks the same is another message then."""
    asked = ("generate", {"prompt": "x", "max_tokens": 1})
    device.take(asked)
    device.acceptance.connected(2, session_present=False)
    device.take(asked, connection=2, dup=True)
    assert device.scheduler.load().queue_len == 2


def test_who_cannot_sign_makes_no_device_forget(tmp_path):
    """A forged envelope under another's name and id is refused, and the copy of what that one signed stays a copy."""
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    (tmp_path / "principals.toml").write_text(f'[alice]\nkey = "{public}"\n')
    identity = IdentityConfig(principals=str(tmp_path / "principals.toml"))
    device = Device(tmp_path / "journal", mqtt=MqttConfig(auth="signed"), identity=identity)
    challenge = device.gate.describe()["identity"]["challenge"]
    parts = {"base": "edgebit/v1/pi", "principal": "alice", "op": "generate", "job_id": "j", "challenge": challenge}
    signature = key.sign(text_to_sign(payload=b"hi", **parts))
    signed = envelope(job_id="j", challenge=challenge, payload="hi", signature=signature)
    device.take(("generate", signed))
    assert device.scheduler.load().queue_len == 1
    device.take(("generate", {**signed, "challenge": "of before", "sig": ""}))
    assert device.heard.bodies[f"{OUT}/j"]["error"]["code"] == "stale_challenge"
    assert device.gate.identify(device.message("generate", signed, 3), "alice", "generate").seen
    device.scheduler.stop()


def test_last_frames_that_had_no_room_go_out_at_the_rate_the_queue_empties(device, monkeypatch):
    """Without a restart, each once, and never more than half of what has room."""
    heard, full = device.heard.publish, []

    def no_room(message):
        full.append(message.topic)
        message.no_room()
        return False

    monkeypatch.setattr(device.heard, "publish", no_room)
    device.take(*[("generate", question(f"q{n}")) for n in range(5)])
    device.serving.start()
    wait_for(lambda: len(full) == 5)
    monkeypatch.setattr(device.heard, "publish", heard)
    came = []
    for room in (0, 1, 4, 100):
        device.acceptance.send_unsent(lambda room=room: room)
        came.append(len(device.heard.bodies))
    assert came == [0, 0, 2, 5] and sorted(device.heard.bodies) == sorted(full)
    device.acceptance.send_unsent(lambda: 100)
    assert set(device.heard.last.values()) == {1} and device.acceptance.counters["sent_again"] == 5


def test_what_goes_by_the_claimed_name_in_open_mode(tmp_path):
    """As docs/privacy.md has it: places, series and cancels by the name, rate limits for all names together."""
    device = Device(
        tmp_path / "journal",
        limits=LimitsConfig(queue_per_principal_max=1),
        rate_limits=RateLimitsConfig(requests=6),
    )
    device.scheduler.set_engine(device.model)
    places = 1 + device.model.sequences

    def ask(principal, op="generate", **fields):
        incoming = device.message(op, {"prompt": "x", "max_tokens": 1, **fields} if op != "cancel" else fields, 1)
        device.admission.take([dataclasses.replace(incoming, topic=incoming.topic.replace("alice", principal))])

    def codes():
        return {topic: body["error"]["code"] for topic, body in device.heard.bodies.items()}

    out = OUT.removesuffix("alice")
    for n in range(places):
        ask("alice", id=f"a{n}")
    ask("alice", id="one-more")
    assert codes() == {f"{out}alice/one-more": "too_many_jobs"}
    ask("mallory", id="m")
    ask("mallory", "cancel", id="a0")
    assert device.scheduler.has(("alice", "a0")) and device.scheduler.has(("mallory", "m"))
    ask("alice", "cancel", id="a0")
    assert not device.scheduler.has(("alice", "a0")), "whoever says that he is alice"
    for n in range(3):
        ask(f"name-{n}", id="n")
    assert set(codes().values()) == {"too_many_jobs", "cancelled", "rate_limit"}
    device.scheduler.stop()
