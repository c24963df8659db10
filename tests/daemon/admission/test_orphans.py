"""Between the queue and the disk: a job there runs still, and one that never arrives is given up."""

import pytest
from admission_fixtures import OUT, Device, question
from serving_fixtures import wait_for

from edgebit.daemon.admission.orphans import LOOK_S, ORPHAN_S


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path / "journal")
    yield device
    device.scheduler.stop()


def lose(device, job_id):
    """As a fault of ours would: it leaves the queue, and nobody answers."""
    assert device.scheduler.cancel("alice", job_id) and f"{OUT}/{job_id}" not in device.heard.bodies


def ticks(device, seconds):
    for _ in range(int(seconds / LOOK_S) + 1):
        device.admission.tick()
        device.now += LOOK_S


@pytest.fixture
def lost(device, monkeypatch):
    device.take(question("a"), question("b"))
    monkeypatch.setattr(device.scheduler, "_refuse", lambda jobs: None)
    lose(device, "a")
    monkeypatch.undo()
    return device


def test_a_job_that_nobody_answers_is_given_up(lost):
    """After a while, once; who has asked again meanwhile hears it too, and may ask anew. Others are left alone."""
    lost.take(question("a"))
    ticks(lost, ORPHAN_S - LOOK_S)
    assert lost.heard.bodies == {}
    ticks(lost, 2 * ORPHAN_S)
    error = lost.heard.bodies[f"{OUT}/a"]["error"]
    assert (error["status"], error["code"], error["retryable"]) == (500, "interrupted", True)
    assert set(lost.heard.last) == {f"{OUT}/a"} and lost.heard.last[f"{OUT}/a"] == 1
    assert lost.admission.counters["orphaned"] == 1
    lost.take(question("a"))
    lost.run(f"{OUT}/b")
    wait_for(lambda: lost.heard.status[f"{OUT}/a"] == 200)


def test_who_answers_late_answers_no_second_time(device):
    """A disk may be slower than our patience."""
    device.take(question("a"))
    entry = device.journal.entry("alice", "a")
    (job,) = device.scheduler._jobs.values()
    device.admission._interrupt(entry, None, "late")
    assert device.heard.last == {f"{OUT}/a": 1}
    device.run()
    wait_for(lambda: not device.scheduler.has(job.key))
    assert device.heard.last == {f"{OUT}/a": 1}


def test_what_waits_runs_or_is_a_batch_is_no_orphan(device):
    device.take(question("a"), ("batch", {"id": "b", "items": [{"prompt": "x", "max_tokens": 1}]}))
    ticks(device, 5 * ORPHAN_S)
    assert device.heard.bodies == {}


def test_a_job_on_its_way_to_the_disk_runs(lost):
    """`get` is not told that it is unknown, as somebody is who asks for what was never there."""
    for target in ("a", "nobody"):
        lost.take(("get", {"id": target, "reply_to": f"{OUT}/got-{target}"}))
    assert lost.heard.bodies[f"{OUT}/got-a"]["state"] == "running"
    assert lost.heard.bodies[f"{OUT}/got-nobody"]["error"]["code"] == "unknown_job"
