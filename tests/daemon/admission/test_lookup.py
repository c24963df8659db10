"""`get`: what was kept of a job, whole or in parts, and the newest job of a series."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mqtt_fixtures import VALIDATORS

from edgebit.daemon.admission.lookup import send_kept
from edgebit.daemon.admission.newest import SERIES_KEPT, Newest
from edgebit.daemon.contract.frames import PACKET_MARGIN, AnswerWriter
from edgebit.daemon.contract.messages import Address, GetRequest, Refusal


class Sent:
    def __init__(self, packet_max=0):
        self.packet_max = packet_max
        self.payloads = []

    def publish(self, message):
        VALIDATORS["reply"].validate(json.loads(message.payload))
        self.payloads.append(message.payload)
        return True


def ask(kept, packet_max=0, offset=0, limit=None):
    sent = Sent(packet_max)
    address = Address(
        principal="a", id="j", id_given=True, topic="t", topic_given=False, correlation=None, deadline=10.0
    )
    writer = AnswerWriter(sent, "pi", address, clock=lambda: 0.0)
    send_kept(writer, "j", kept, GetRequest(target="j", offset=offset, limit=limit))
    return json.loads(sent.payloads[0])


def answered(text):
    return {"id": "j", "seq": 7, "t": "done", "done": True, "text": text, "done_reason": "stop", "seed": 3}


def test_an_answer_as_it_was():
    """Figures and text; the frame's own fields are the new frame's."""
    got = ask(answered("hello"))
    assert (got["seq"], got["op"], got["job"], got["state"]) == (0, "get", "j", "done")
    assert (got["text"], got["seed"], got["text_length"]) == ("hello", 3, 5) and "next_offset" not in got
    got = ask(answered("hello"), offset=1, limit=3)
    assert (got["text"], got["offset"], got["next_offset"]) == ("ell", 1, 4)
    assert ask(answered("hello"), offset=5)["text"] == ""
    with pytest.raises(Refusal, match="5 characters"):
        ask(answered("hello"), offset=6)


@example("\x00" * 600, 0)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=600), st.integers(0, 300))
@example("x" * 600, 0)
@example("é" * 600, 7)
def test_nothing_is_out_of_reach(text, spare):
    """However large the answer and small the broker's packets, its parts come one after another and are the whole."""
    room = PACKET_MARGIN + 250 + spare
    got, offset = [], 0
    while offset is not None:
        part = ask(answered(text), packet_max=room, offset=offset)
        assert len(json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode()) < room
        assert part["text"] or not text
        got.append(part["text"])
        offset = part.get("next_offset")
    assert "".join(got) == text


def test_an_error_as_it_was():
    """What ended the job is told as it was told then."""
    error = Refusal(503, "queue_full", "3 wait", retryable=True, retry_after_ms=10, details={"queue_len": 3}).body()
    got = ask({"id": "j", "seq": 0, "t": "error", "done": True, "error": error})
    assert (got["error"], got["state"], got["op"]) == (error, "failed", "get")


def test_the_newest_of_a_series():
    """Each principal's own, and bounded."""
    newest = Newest()
    assert newest.replace("a", "ha", "ha.1") is None
    assert newest.replace("a", "ha", "ha.2") == "ha.1"
    assert (newest.resolve("a", "ha"), newest.resolve("b", "ha"), newest.resolve("a", "x")) == ("ha.2", "ha", "x")
    for n in range(SERIES_KEPT):
        newest.replace("b", f"s{n}", "x")
    assert newest.resolve("a", "ha") == "ha", "forgotten"
