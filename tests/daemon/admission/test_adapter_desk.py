"""`load_adapter` and `unload_adapter` from message to journal: once, however often they come."""

import base64
import hashlib

import pytest
from admission_fixtures import OUT, Device, question

from edgebit.daemon.config.safeguards import AdaptersConfig, RateLimitsConfig

FILE = b"adapter of fake\n" + bytes(100)
SHA256 = hashlib.sha256(FILE).hexdigest()
WHOLE = {"id": "l", "adapter": "garage", "data": base64.b64encode(FILE).decode()}
UNLOAD = {"id": "u", "adapter": "garage"}


def part(job_id, begin, end):
    data = base64.b64encode(FILE[begin:end]).decode()
    return {"id": job_id, "adapter": "garage", "data": data, "offset": begin, "size": len(FILE), "sha256": SHA256}


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path / "journal", adapters=AdaptersConfig(may_load=("alice",)))


def names(device):
    return [about["name"] for about in device.adapters.describe()]


def heard(device, name):
    return device.heard.bodies[f"{OUT}/{name}"]


def test_whole_in_parts_and_away_again(device):
    """Each message is answered."""
    device.take(("load_adapter", part("p1", 0, 60)))
    assert (heard(device, "p1")["received"], heard(device, "p1")["loaded"], names(device)) == (60, False, [])
    device.take(("load_adapter", part("p2", 60, 116)))
    assert (heard(device, "p2")["loaded"], heard(device, "p2")["sha256"], names(device)) == (True, SHA256, ["garage"])
    device.take(("unload_adapter", UNLOAD), ("unload_adapter", {**UNLOAD, "id": "u2"}))
    assert (heard(device, "u")["unloaded"], heard(device, "u2")["unloaded"], names(device)) == (True, False, [])


def test_who_may_not(tmp_path):
    """Nobody unless the owner says so."""
    device = Device(tmp_path / "journal")
    device.take(("load_adapter", WHOLE), ("unload_adapter", UNLOAD))
    for name in "lu":
        assert heard(device, name)["error"]["code"] == "not_allowed"


def test_a_load_that_comes_again_after_the_unload(device):
    """The broker has missed an acknowledgement, and the device has crashed: it is not loaded a second time."""
    load, unload = device.message("load_adapter", WHOLE, 1), device.message("unload_adapter", UNLOAD, 2)
    device.admission.take([load])
    device.admission.take([unload])
    device.restart()
    device.take()
    again = device.message("load_adapter", WHOLE, 1, connection=2, dup=True)
    device.admission.take([again])
    assert names(device) == [] and device.acceptance.counters["repeated"] == 1


class Crash(BaseException):
    """Ends the daemon where it stands."""


@pytest.mark.parametrize("dup", [True, False])
@pytest.mark.parametrize("op", ["load_adapter", "unload_adapter"])
def test_a_crash_before_the_answer(device, monkeypatch, op, dup):
    """The file is seen to and the answer is not on the disk: sent again, by broker or caller, it is answered well."""
    device.take(("load_adapter", {**WHOLE, "id": "before"}))
    if op == "load_adapter":
        device.take(("unload_adapter", {**UNLOAD, "id": "gone"}))
    act = device.admission._adapters._act

    def crash(request, data):
        act(request, data)
        device.journal.commit()
        raise Crash

    monkeypatch.setattr(device.admission._adapters, "_act", crash)
    monkeypatch.setattr(device.acceptance, "give_up", lambda record: None)
    fields = WHOLE if op == "load_adapter" else UNLOAD
    with pytest.raises(Crash):
        device.admission.handle(device.message(op, fields, 7))
    device.restart()
    assert names(device) == (["garage"] if op == "load_adapter" else [])
    assert f"{OUT}/{fields['id']}" not in device.heard.bodies
    device.admission.take([device.message(op, fields, 7, connection=2, dup=dup)])
    body = heard(device, fields["id"])
    told = {"loaded": True, "changed": False} if op == "load_adapter" else {"unloaded": False}
    assert told.items() <= body.items(), body
    device.restart()
    assert device.recovered == 0


def test_the_same_id_is_answered_the_same(device):
    """Whoever missed the answer asks again and hears it, though the adapter has gone since."""
    device.take(("load_adapter", WHOLE))
    first = heard(device, "l")
    device.take(("unload_adapter", UNLOAD))
    device.restart()
    device.take(("load_adapter", WHOLE))
    assert heard(device, "l") == first and names(device) == []


def test_the_request_is_acknowledged_after_the_disk_has_it(device, tmp_path):
    """A crash before that has the broker send it again: then it is there, and said to be."""
    device.take(("load_adapter", WHOLE))
    assert device.steps == [("ack", 1)]
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [f"garage@{SHA256}"]
    device.restart()
    assert names(device) == ["garage"]


def test_one_that_was_refused_leaves_nothing_in_the_journal(device):
    """It may be asked again under the same id."""
    bad = {**WHOLE, "data": base64.b64encode(b"nonsense").decode()}
    device.take(("load_adapter", bad))
    assert heard(device, "l")["error"]["code"] == "bad_adapter"
    assert device.journal.entry("alice", "l") is None
    device.take(("load_adapter", WHOLE))
    assert heard(device, "l")["loaded"] and device.journal.in_flight() == []
    device.restart()
    assert device.recovered == 0


def test_each_counts_as_a_request(tmp_path):
    """For the limits of a principal."""
    device = Device(
        tmp_path / "journal",
        adapters=AdaptersConfig(may_load=("alice",)),
        rate_limits=RateLimitsConfig(requests=2),
    )
    device.take(*(("unload_adapter", {**UNLOAD, "id": f"u{n}"}) for n in range(3)))
    assert heard(device, "u1")["unloaded"] is False
    assert heard(device, "u2")["error"]["code"] == "rate_limit"


def test_a_question_for_one_that_is_not_there(device):
    """It is refused at once, naming those that are."""
    device.serving.start()
    device.take(("load_adapter", WHOLE))
    device.take(question("q", adapter="lamp"))
    error = heard(device, "q")["error"]
    assert (error["status"], error["code"]) == (404, "adapter_not_found") and "'garage'" in error["message"]
    device.serving.stop()


def test_a_question_is_run_again_with_its_adapter(device):
    """After a crash, from the journal; where the adapter has gone meanwhile, that is said."""
    device.take(("load_adapter", WHOLE))
    device.take(question("q", adapter="garage"), question("r", adapter="garage"))
    device.restart()
    device.serving.start()
    (body,) = device.run(f"{OUT}/q")
    assert "error" not in body


def test_a_session_keeps_to_its_adapter(device):
    """Another adapter, one of its name too, or none, is refused; another session is not."""
    device.take(("load_adapter", WHOLE))
    ask = {"max_tokens": 2, "session": "s"}
    device.take(question("a", **ask, adapter="garage"))
    device.run(f"{OUT}/a")
    device.take(question("b", **ask), question("c", **ask, adapter="garage"), question("d", session="t"))
    device.run(f"{OUT}/b", f"{OUT}/c", f"{OUT}/d")
    assert heard(device, "b")["error"]["code"] == "conflict"
    assert heard(device, "c")["session"]["turns"] == 2 and heard(device, "d")["session"]["turns"] == 1

    other = {**WHOLE, "id": "l2", "data": base64.b64encode(FILE + b"trained on").decode()}
    device.take(("load_adapter", other), question("e", **ask, adapter="garage"))
    device.run(f"{OUT}/e")
    error = heard(device, "e")["error"]
    assert error["code"] == "conflict" and "was replaced since session 's'" in error["message"]
    device.take(("load_adapter", {**WHOLE, "id": "l3"}), question("f", **ask, adapter="garage"))
    device.run(f"{OUT}/f")
    assert heard(device, "f")["session"]["turns"] == 3
    device.serving.stop()
