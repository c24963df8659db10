"""What the journal knows after a restart, a full disk, a clock that was set, and ten thousand jobs."""

import dataclasses
import errno
import json
import os

import pytest

from edgebit.daemon.admission import job_store
from edgebit.daemon.admission.boot_clock import Instant
from edgebit.daemon.admission.job_store import REPAIR_S, REWRITE_AFTER_S, TIDY_S
from edgebit.daemon.admission.journal import FRAMES_AHEAD, PLACES_MAX, Journal
from edgebit.daemon.admission.journal_records import Asked, Identity, Place
from edgebit.daemon.admission.record_file import HEADER, STEP_BYTES, framed, whole_records
from edgebit.daemon.config.sections import JournalConfig
from edgebit.daemon.contract.frames import Outgoing
from edgebit.daemon.contract.messages import Refusal

HERE = Place("edgebit/v1/pi/out/alice/a", b"\x01")
BUSY = Refusal(503, "hot", "too hot", retryable=True)
YEAR = 365 * 86_400.0


class Clock:
    """A machine that is switched off and on, and whose wall clock is set."""

    def __init__(self):
        self.boot, self.up_s, self.wall_s = "boot-1", 100.0, 1.7e9

    def __call__(self):
        return Instant(self.boot, self.up_s, self.wall_s)

    def pass_s(self, seconds):
        self.up_s += seconds
        self.wall_s += seconds

    def reboot(self, wall_s):
        self.boot, self.up_s, self.wall_s = self.boot + "+", 3.0, wall_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def open_journal(path, clock):
    """Opens the journal, as after a crash when one is open already."""
    opened = []

    def start(**config):
        opened.append(Journal(path, JournalConfig(**{"size_mib": 1, **config}), clock=clock))
        return opened[-1]

    yield start
    for journal in opened:
        journal.close()


def identity(job_id="a", *, given=True, fingerprint=b"print", connection=1, packet_id=7):
    return Identity(
        principal="alice",
        id=job_id,
        id_given=given,
        fingerprint=fingerprint,
        connection=connection,
        packet_id=packet_id,
    )


def asked(clock, *, ttl_s=60.0, prompt="say 3"):
    return Asked(op="generate", fields={"prompt": prompt}, topic_given=False, series=None, ttl_s=ttl_s, at=clock())


def accept(journal, clock, job_id="a", *, place=HERE, reserve=500, ttl_s=60.0, prompt="say 3", **named):
    return journal.accept(identity(job_id, **named), place, asked(clock, ttl_s=ttl_s, prompt=prompt), reserve)


def last_frame(text="w0 "):
    payload = json.dumps({"t": "done", "text": text}).encode()
    return Outgoing(topic="", payload=payload, expiry_s=60, user=(("eb-seq", "3"),))


def finish(record, text="w0 ", refusal=None):
    frame = last_frame(text)
    return record.ending(frame, refusal, json.loads(frame.payload))


def ids(journal):
    return [entry.identity.id for entry, _, _ in journal.unfinished()]


# What is there after a crash


def test_an_accepted_job_is_there_again(open_journal, clock):
    journal = open_journal()
    accept(journal, clock, "a", prompt="caf\u00e9 \ud83d")
    accept(journal, clock, "b")
    journal.commit()
    ((entry, what, left_s), _) = open_journal().unfinished()
    assert entry.identity == identity("a") and entry.places == [HERE]
    assert what == asked(clock, prompt="caf\u00e9 \ud83d") and left_s == 60.0


def test_what_was_not_committed_is_gone_for_good(open_journal, clock):
    """It was not acknowledged: its sender has it still. What is committed later does not bring it back."""
    journal = open_journal()
    accept(journal, clock, "a")
    journal.commit()
    accept(journal, clock, "b")
    second = open_journal()
    assert ids(second) == ["a"]
    accept(second, clock, "c")
    second.commit()
    third = open_journal()
    assert ids(third) == ["a", "c"]


def test_a_rewrite_between_commits_commits_nothing(open_journal, clock, monkeypatch):
    monkeypatch.setattr(job_store, "REWRITE_BYTES", 0)
    journal = open_journal()
    finish(accept(journal, clock, "old"))
    accept(journal, clock, "a")
    journal.commit()
    accept(journal, clock, "b")
    clock.pass_s(REWRITE_AFTER_S + 1)
    journal.tick()
    assert ids(journal) == ["a", "b"] and ids(open_journal()) == ["a"]


def test_the_last_frame_is_there_again_byte_for_byte(open_journal, clock):
    journal = open_journal()
    record = accept(journal, clock)
    journal.commit()
    other = dataclasses.replace(HERE, topic="edgebit/v1/pi/out/alice/other", correlation=None)
    assert journal.join(record.entry, other) and journal.join(record.entry, other)
    sent = finish(record)
    assert [(message.topic, message.correlation) for message in sent] == [
        (HERE.topic, b"\x01"),
        (other.topic, None),
    ]
    clock.pass_s(20)
    again = open_journal()
    assert again.undelivered() == [dataclasses.replace(message, expiry_s=40) for message in sent]
    assert again.find("alice", "a") == {"t": "done", "text": "w0 "}
    assert ids(again) == []


def test_what_the_broker_has_is_not_sent_again(open_journal, clock):
    """Once all places have it."""
    journal = open_journal()
    record = accept(journal, clock)
    journal.commit()
    journal.join(record.entry, dataclasses.replace(HERE, topic="other"))
    first, second = finish(record)
    first.delivered()
    journal.tick()
    assert len(open_journal().undelivered()) == 2
    second.delivered()
    journal.tick()
    assert open_journal().undelivered() == []
    assert open_journal().find("alice", "a") is not None


def test_a_last_frame_that_had_no_room_is_given_again_once(open_journal, clock):
    """To the place that missed it; and not where the broker has it, or nobody remembers it."""
    journal = open_journal(keep_s=100.0)
    record = accept(journal, clock)
    journal.commit()
    journal.join(record.entry, dataclasses.replace(HERE, topic="other"))
    _, second = finish(record)
    assert not journal.has_unsent and journal.unsent(9) == []
    second.no_room()
    clock.pass_s(20)
    assert journal.unsent(0) == []
    (again,) = journal.unsent(9)
    assert again == dataclasses.replace(second, expiry_s=40) and not journal.has_unsent
    again.no_room()
    clock.pass_s(200)
    journal.tick()
    assert journal.unsent(9) == [] and not journal.has_unsent


def test_a_stream_that_has_begun_is_known(open_journal, clock, monkeypatch):
    """From its first frame on, on the disk; one record does for many frames, and none is above what it says."""
    journal = open_journal()
    record = accept(journal, clock)
    journal.commit()
    syncs = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda handle: (syncs.append(1), sync(handle)))
    for seq in range(FRAMES_AHEAD + 1):
        record.sending(seq)
        assert len(syncs) == 1 + seq // FRAMES_AHEAD
    ((entry, _, _),) = open_journal().unfinished()
    assert entry.frames_sent > FRAMES_AHEAD


def test_how_often_a_job_was_taken_up_again_is_known(open_journal, clock):
    journal = open_journal()
    accept(journal, clock)
    journal.commit()
    for restarts in range(3):
        journal = open_journal()
        ((entry, _, _),) = journal.unfinished()
        assert entry.resumed == restarts
        journal.resume(entry, 500)
        journal.commit()


def test_a_withdrawn_job_is_gone(open_journal, clock):
    journal = open_journal()
    journal.withdraw(accept(journal, clock))
    journal.commit()
    assert journal.entry("alice", "a") is None and ids(open_journal()) == []


def test_records_that_are_not_understood_are_passed_over(open_journal, clock, path):
    """A newer daemon's, and a damaged head; what is whole behind them counts."""
    journal = open_journal()
    accept(journal, clock)
    journal.commit()
    content = path.read_bytes()
    (*_, end) = whole_records(content)
    new = [b"\xff\x02\0\0\0{}", b"\x01\xff\xff\xff\xff", b"\x05\x08\0\0\0" + b'{"n":99}', b"\x04\x02\0\0\0{}"]
    path.write_bytes(content[: end.offset + end.size] + b"".join(map(framed, new)))
    assert ids(open_journal()) == ["a"]


@pytest.mark.parametrize("content", [b"", b"garbage", HEADER + b"\x10\0\0\0garbage"])
def test_a_file_of_garbage_is_an_empty_journal(open_journal, clock, path, content):
    path.write_bytes(content)
    journal = open_journal()
    accept(journal, clock)
    journal.commit()
    assert journal.fault is None and ids(open_journal()) == ["a"]


# Requests that come again


@pytest.mark.parametrize(
    ("again", "session_began", "same"),
    [
        ({"connection": 2}, 1, True),
        ({"connection": 1}, 1, False),  # one connection: another message under a packet id that is free again
        ({"connection": 2}, 2, False),  # without its session a broker sends nothing again
        ({"connection": 2, "packet_id": 8}, 1, False),
        ({"connection": 2, "fingerprint": b"other"}, 1, False),
        ({"connection": 2, "packet_id": 0}, 1, False),
    ],
)
def test_the_same_message_again(open_journal, clock, again, session_began, same):
    journal = open_journal()
    record = accept(journal, clock, "drawn", given=False)
    found = journal.find_redelivered(identity("drawn-2", given=False, **again), session_began)
    assert found is (record.entry if same else None)


def test_a_job_is_awaited_at_a_few_places(open_journal, clock):
    journal = open_journal()
    record = accept(journal, clock)
    for n in range(PLACES_MAX - 1):
        assert journal.join(record.entry, Place(f"t{n}", None))
    with pytest.raises(Refusal) as refused:
        journal.join(record.entry, Place("one more", None))
    assert refused.value.code == "id_in_use"
    finish(record)
    assert not journal.join(record.entry, HERE), "too late: it is to be replayed"


def test_a_job_that_failed_may_be_asked_for_again(open_journal, clock):
    journal = open_journal()
    finish(accept(journal, clock), refusal=BUSY)
    assert journal.entry("alice", "a").ended.retryable
    accept(journal, clock)
    journal.commit()
    assert ids(open_journal()) == ["a"] and len(journal.undelivered()) == 0


# Clocks


@pytest.mark.parametrize(
    ("happens", "left_s"),
    [
        (lambda clock: clock.pass_s(25), 35.0),
        (lambda clock: setattr(clock, "wall_s", clock.wall_s + YEAR), 60.0),
        (lambda clock: setattr(clock, "wall_s", clock.wall_s - YEAR), 60.0),
        (lambda clock: clock.reboot(clock.wall_s + 25), 35.0),
        (lambda clock: clock.reboot(clock.wall_s + YEAR), 60.0 - YEAR),
        (lambda clock: clock.reboot(0.0), 60.0),
    ],
)
def test_deadlines_over_a_restart(open_journal, clock, happens, left_s):
    """No clock that is set makes a job later than it was when it was accepted, or loses it."""
    journal = open_journal()
    accept(journal, clock)
    journal.commit()
    happens(clock)
    ((_, _, left),) = open_journal().unfinished()
    assert left == pytest.approx(left_s)


@pytest.mark.parametrize("wall_s", [0.0, 1.7e9, 1.7e9 + 100, 4e9])
def test_answers_are_forgotten_after_their_time(open_journal, clock, wall_s):
    """At the latest keep_s after a restart, even if the wall clock was ten years ahead when they were written."""
    journal = open_journal(keep_s=600)
    (sent,) = finish(accept(journal, clock))
    sent.delivered()
    journal.tick()
    clock.reboot(wall_s)
    journal = open_journal(keep_s=600)
    clock.wall_s -= 5 * YEAR
    clock.pass_s(601)
    journal.tick()
    assert journal.find("alice", "a") is None


def test_an_answer_that_nobody_has_is_kept_for_as_long_as_somebody_waits(open_journal, clock):
    journal = open_journal(keep_s=10)
    finish(accept(journal, clock))
    clock.pass_s(59)
    journal.tick()
    assert journal.find("alice", "a") is not None
    clock.pass_s(2)
    journal.tick()
    assert journal.find("alice", "a") is None


# Room


def test_a_prompt_does_not_stay_in_the_file(open_journal, clock, path):
    journal = open_journal()
    record = accept(journal, clock, prompt="a secret")
    journal.commit()
    finish(record)
    assert b"a secret" in path.read_bytes()
    clock.pass_s(REWRITE_AFTER_S + TIDY_S)
    journal.tick()
    assert b"a secret" not in path.read_bytes() and journal.find("alice", "a") is not None


@pytest.mark.parametrize("given", [True, False])
def test_many_jobs_leave_a_small_file(open_journal, clock, path, given, monkeypatch):
    """The newest answers are kept, up to answers_max; those without an id of the caller's go first."""
    monkeypatch.setattr(os, "fdatasync", lambda handle: None)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    journal = open_journal(answers_max=50)
    largest = 0
    for n in range(3000):
        record = accept(journal, clock, f"j{n}", given=given or n % 2 == 0)
        journal.commit()
        for message in finish(record, "w" * 300):
            message.delivered()
        clock.pass_s(0.01)
        journal.tick()
        largest = max(largest, path.stat().st_size)
    clock.pass_s(TIDY_S)
    journal.tick()
    kept = [n for n in range(3000) if journal.entry("alice", f"j{n}") is not None]
    assert kept == ([*range(2950, 3000)] if given else [*range(2900, 3000, 2)])
    assert largest <= 1 << 20
    assert journal.fault is None and not journal.counters


def test_the_limit_refuses_new_work_and_no_answer(open_journal, clock, path, monkeypatch):
    """Jobs in flight fill the file: the next is told to come again, and there is no rewrite for each of them."""
    journal = open_journal()
    records = []
    with pytest.raises(Refusal) as refused:
        for n in range(1000):
            records.append(accept(journal, clock, f"j{n}", reserve=5000))
    journal.commit()
    assert (refused.value.status, refused.value.code, refused.value.retryable) == (503, "storage_full", True)
    assert journal.fault is None, "the disk is well"
    rewrites = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (rewrites.append(1), replace(*names)))
    for n, record in enumerate(records[:100]):
        for message in finish(record, "w" * 4000):
            message.delivered()
        journal.tick()
        try:
            accept(journal, clock, f"k{n}", reserve=5000)
        except Refusal:
            continue
        journal.commit()
    assert len(rewrites) < 15
    assert all(journal.find("alice", f"j{n}") for n in range(90, 100))
    assert path.stat().st_size <= 1 << 20


# A disk that fails


@pytest.fixture
def broken(monkeypatch):
    """Makes a function of os fail with an error number; None mends it."""
    whole = {name: getattr(os, name) for name in ("pwrite", "fdatasync", "fsync", "posix_fallocate", "replace")}

    def break_it(number, *names):
        def fail(*arguments):
            raise OSError(number, os.strerror(number))

        for name, act in whole.items():
            monkeypatch.setattr(os, name, fail if number and name in names else act)

    return break_it


@pytest.mark.parametrize("names", [("posix_fallocate",), ("pwrite", "posix_fallocate")])
def test_a_full_disk(open_journal, clock, path, broken, names):
    """New work is refused, running jobs are answered, and when there is room again all is as before."""
    journal = open_journal()
    record = accept(journal, clock)
    journal.commit()
    broken(errno.ENOSPC, *names)
    with pytest.raises(Refusal) as refused:
        accept(journal, clock, "b", reserve=STEP_BYTES)
    assert (refused.value.status, refused.value.code, refused.value.retryable) == (503, "storage_full", True)
    assert "No space left" in journal.fault
    assert [message.topic for message in finish(record)] == [HERE.topic]
    assert journal.find("alice", "a") == {"t": "done", "text": "w0 "}
    for _ in range(3):
        clock.pass_s(REPAIR_S + 1)
        journal.tick()
        assert journal.fault is not None
    broken(None)
    clock.pass_s(REPAIR_S + 1)
    journal.tick()
    assert journal.fault is None, "nobody has to ask for it"
    accept(journal, clock, "c")
    journal.commit()
    again = open_journal()
    assert ids(again) == ["c"] and len(again.undelivered()) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_broken_disk(open_journal, clock, broken, number):
    """What cannot be synced is not acknowledged; another file is tried, and if that fails too it is a fault."""
    journal = open_journal()
    record = accept(journal, clock)
    journal.commit()
    broken(number, "fdatasync", "fsync")
    withdrawn = accept(journal, clock, "b")
    with pytest.raises(Refusal) as refused:
        journal.commit()
    assert (refused.value.code, refused.value.retryable) == ("storage_fault", True)
    journal.withdraw(withdrawn)
    assert len(finish(record)) == 1 and journal.find("alice", "a") is not None
    broken(None)
    clock.pass_s(REPAIR_S + 1)
    journal.tick()
    assert journal.fault is None
    again = open_journal()
    assert ids(again) == [] and len(again.undelivered()) == 1


def test_a_sync_that_fails_once_costs_another_file(open_journal, clock, broken):
    journal = open_journal()
    accept(journal, clock)
    broken(errno.EIO, "fdatasync")
    journal.commit()
    assert journal.fault is None and ids(open_journal()) == ["a"]


def test_a_stream_begins_on_a_disk_that_fails_once(open_journal, clock, monkeypatch):
    """What could not be appended stands in another file: the stream is not begun anew after a crash."""
    journal = open_journal()
    record = accept(journal, clock)
    journal.commit()
    pwrite = os.pwrite

    def fail_once(*arguments):
        monkeypatch.setattr(os, "pwrite", pwrite)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", fail_once)
    record.sending(0)
    ((entry, _, _),) = open_journal().unfinished()
    assert entry.frames_sent == FRAMES_AHEAD


def test_what_comes_after_the_end_leaves_the_file_as_it_is(open_journal, clock):
    """A thread that outlives the shutdown: its answer goes out, and what was kept before is kept."""
    journal = open_journal()
    records = [accept(journal, clock, name) for name in "abc"]
    journal.commit()
    finish(records[0])
    journal.close()
    assert [message.topic for message in finish(records[1])] == [HERE.topic]
    records[2].sending(0)
    again = open_journal()
    assert again.find("alice", "a") is not None and ids(again) == ["b", "c"]


def test_a_journal_that_cannot_be_opened_refuses_work(tmp_path, clock):
    """The daemon goes on: pings, and what is known, are answered."""
    journal = Journal(tmp_path / "journal" / "none", JournalConfig(), clock=clock)
    assert journal.fault is not None and journal.unfinished() == [] and journal.undelivered() == []
    with pytest.raises(Refusal) as refused:
        accept(journal, clock)
    assert refused.value.code == "storage_fault"
    journal.tick()
    journal.close()


def test_a_record_that_rots_is_lost_alone(open_journal, clock, path):
    journal = open_journal()
    accept(journal, clock, "a", prompt="rotten")
    second = accept(journal, clock, "b")
    journal.commit()
    finish(second)
    content = bytearray(path.read_bytes())
    content[content.index(b"rotten")] ^= 1
    path.write_bytes(content)
    ((entry, what, _),) = journal.unfinished()
    assert entry.identity.id == "a" and what is None and journal.counters["journal_lost"] == 1
    assert journal.find("alice", "b") is not None
