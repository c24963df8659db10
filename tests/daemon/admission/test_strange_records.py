"""Whole records that this version does not understand: they end no start, and no other job."""

import json
import struct

import pytest
from admission_fixtures import OUT, Device, question
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_fixtures import wait_for

from edgebit.daemon.admission.journal_records import Kind
from edgebit.daemon.admission.record_file import HEADER, framed, whole_records

BOTH = ("n", "principal", "id", "given", "print", "connection", "packet", "places", "ttl_s", "at")
ACCEPTED = (*BOTH, "op", "seed", "priority", "topic_given", "series")
FINISHED = (*BOTH, "status", "code", "retryable", "content_type", "user", "payload")
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 10**400),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([[], {}, [[]], ["nan"], "inf"]),
)
GONE = object()


def bodies(path):
    content = path.read_bytes()
    return [content[span.offset : span.offset + span.size] for span in whole_records(content)]


def changed(body, name, value):
    """The same record with another value in its head, or without it."""
    kind, size = struct.unpack_from("<BI", body)
    head = json.loads(body[5 : 5 + size])
    assert name in head
    head[name] = value
    if value is GONE:
        del head[name]
    text = json.dumps(head).encode()
    return struct.pack("<BI", kind, len(text)) + text + body[5 + size :]


def of_kind(found, kind):
    return next(n for n, body in enumerate(found) if body[0] == kind)


def rewritten(path, found):
    path.write_bytes(HEADER + b"".join(map(framed, found)))


@pytest.fixture(scope="module")
def two_jobs(tmp_path_factory):
    """The records of a journal that knows an answered job and one in flight, both of which tests may spoil, and `b`."""
    path = tmp_path_factory.mktemp("journal") / "journal"
    device = Device(path)
    device.take(question("done"))
    device.run(f"{OUT}/done")
    device.scheduler.stop()
    device.restart()
    device.take(question("a"), question("b"))
    found = bodies(path)
    device.scheduler.stop()
    first = of_kind(found, Kind.ACCEPTED)
    del found[first]  # of `done`
    return found


CASES = [(Kind.ACCEPTED, name) for name in ACCEPTED] + [(Kind.FINISHED, name) for name in FINISHED]


@pytest.mark.parametrize(("kind", "name"), CASES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.one_of(st.just(GONE), STRANGE))
def test_a_strange_record_is_left_out(two_jobs, tmp_path, kind, name, value):
    """The daemon starts, the others' jobs are there, and it can be asked again."""
    path = tmp_path / "journal"
    found = list(two_jobs)
    found[of_kind(found, kind)] = changed(found[of_kind(found, kind)], name, value)
    rewritten(path, found)
    device = Device(path)
    try:
        assert device.scheduler.has(("alice", "b"))
        entry = device.journal.entry("alice", "a")
        assert entry is None or entry.ended is not None or device.scheduler.has(("alice", "a"))
    finally:
        device.scheduler.stop()


def test_a_job_whose_request_is_lost_is_answered(two_jobs, tmp_path):
    """Its address is known: whoever waits hears that it was interrupted, once, and may ask again."""
    path = tmp_path / "journal"
    found = list(two_jobs)
    at = of_kind(found, Kind.ACCEPTED)
    found[at] = changed(found[at], "priority", GONE)
    rewritten(path, found)
    device = Device(path)
    error = device.heard.bodies[f"{OUT}/a"]["error"]
    assert (error["status"], error["code"], error["retryable"]) == (500, "interrupted", True)
    assert device.journal.counters["journal_lost"] == 1
    device.take(question("a"))
    device.run(f"{OUT}/b")
    wait_for(lambda: device.heard.last[f"{OUT}/a"] == 2)
    assert "error" not in device.heard.bodies[f"{OUT}/a"]
    device.scheduler.stop()


def test_fields_that_nobody_can_read_are_answered(two_jobs, tmp_path):
    """The record is well, what was asked is nothing that can be asked for."""
    path = tmp_path / "journal"
    found = list(two_jobs)
    at = of_kind(found, Kind.ACCEPTED)
    found[at] = changed(found[at], "op", "batch")
    rewritten(path, found)
    device = Device(path)
    assert device.heard.bodies[f"{OUT}/a"]["error"]["code"] == "interrupted"
    assert not device.admission.batches.has(("alice", "a")) and device.scheduler.has(("alice", "b"))
    assert device.admission.counters["internal"] == 1
    device.scheduler.stop()
