"""How tokens become frames: when they are flushed, what the last one holds, and that it is the last."""

import hashlib
import json

import pytest

from edgebit.daemon.contract.frames import PACKET_MARGIN, AnswerWriter
from edgebit.daemon.contract.messages import Address, Refusal


class Sent:
    """A publisher that keeps what it is given."""

    def __init__(self, packet_max=0):
        self.packet_max = packet_max
        self.messages = []

    def publish(self, message):
        self.messages.append(message)
        return True

    @property
    def bodies(self):
        return [json.loads(message.payload) for message in self.messages]


ADDRESS = Address(
    principal="a", id="i", id_given=True, topic="out/a/i", topic_given=False, correlation=b"c", deadline=100.0
)


def writer(sent, step=0.0, **named):
    """A writer whose clock goes on by `step` seconds each time it is looked at."""
    now = iter(n * step for n in range(10**6))
    return AnswerWriter(sent, "pi", ADDRESS, clock=lambda: next(now), **{"stream": True, **named})


def test_the_first_piece_goes_out_at_once_and_the_next_wait_for_company():
    """16 tokens, where the clock stands still."""
    sent = Sent()
    out = writer(sent)
    for n in range(40):
        out.push(f"{n} ")
    assert [len(body["d"].split()) for body in sent.bodies] == [1, 16, 16]


def test_a_long_piece_does_not_wait():
    """512 bytes are enough for a frame, counted in UTF-8."""
    sent = Sent()
    out = writer(sent)
    out.push("a")
    out.push("é" * 255)
    assert len(sent.messages) == 1
    out.push("é")
    assert [len(body["d"]) for body in sent.bodies] == [1, 256]


def test_time_flushes():
    """80 ms after the last frame the next token goes out."""
    sent = Sent()
    out = writer(sent, step=0.05)
    for n in range(6):
        out.push(f"{n}")
    assert "".join(body["d"] for body in sent.bodies) != "" and len(sent.messages) >= 3


def test_tokens_without_text_make_no_empty_frames():
    """A token may be half a character, or held back as a possible stop string."""
    sent = Sent()
    out = writer(sent)
    for _ in range(40):
        out.push("")
    out.push("é")
    out.done({}, "é")
    assert [body["t"] for body in sent.bodies] == ["delta", "done"]


def test_the_last_frame_counts_and_sums():
    """seq is how many came before; the hash is of the whole text."""
    sent = Sent()
    out = writer(sent)
    for piece in ("a", "b", "c"):
        out.push(piece)
    out.done({"done_reason": "stop"}, "abc")
    last = sent.bodies[-1]
    assert (last["seq"], last["text"], last["text_sha256"]) == (2, "abc", hashlib.sha256(b"abc").hexdigest())
    assert sent.messages[-1].correlation == b"c" and sent.messages[-1].qos == 1 and not sent.messages[-1].retain


def test_what_was_pending_comes_before_an_error():
    """A caller sees all that was made, then why no more comes."""
    sent = Sent()
    out = writer(sent)
    out.push("a")
    out.push("b")
    out.error(Refusal(499, "cancelled", "by the caller"), {"usage": {}})
    assert [body["t"] for body in sent.bodies] == ["delta", "delta", "error"]
    assert sent.bodies[-1]["error"] == {
        "status": 499,
        "code": "cancelled",
        "type": "CANCELLED",
        "message": "by the caller",
        "retryable": False,
    }


def test_there_is_one_last_frame():
    """A second one would be a fault of ours."""
    out = writer(Sent())
    out.done({}, "")
    with pytest.raises(AssertionError, match="answered already"):
        out.error(Refusal(500, "internal", "x"))


def test_a_late_answer_still_has_a_while_to_live():
    """After the deadline the broker keeps the last frame for 10 s, not for ever and not for no time."""
    sent = Sent()
    out = AnswerWriter(sent, "pi", ADDRESS, clock=lambda: 500.0)
    out.error(Refusal(408, "expired", "late"))
    assert sent.messages[0].expiry_s == 10


def test_text_has_no_frames_around_it():
    """The end of a text stream is an empty message; an error can be read."""
    sent = Sent()
    out = writer(sent, format="text")
    out.push("hé")
    out.done({}, "hé")
    assert [message.payload for message in sent.messages] == ["hé".encode(), b""]
    assert {message.content_type for message in sent.messages} == {"text/plain"}
    out = writer(sent, format="text")
    out.error(Refusal(503, "queue_full", "3 jobs are waiting already"))
    assert sent.messages[-1].payload == b"[503 queue_full: 3 jobs are waiting already]"


def test_a_piece_is_split_where_the_broker_takes_little():
    """Deltas are cut between characters into what fits, and together they are the text."""
    sent = Sent(packet_max=700)
    out = writer(sent)
    text = "€" * 400
    out.push(text)
    out.done({}, text)
    deltas = sent.bodies[:-1]
    assert len(deltas) > 5 and "".join(body["d"] for body in deltas) == text
    assert all(len(message.payload) < 700 - PACKET_MARGIN for message in sent.messages)


def test_a_chat_answer_is_a_message_too():
    """As Ollama's clients look for it, unless it was streamed or is too large twice."""
    sent = Sent()
    writer(sent, stream=False, chat=True).done({}, "hi")
    assert sent.bodies[-1]["message"] == {"role": "assistant", "content": "hi"} and sent.bodies[-1]["text"] == "hi"
    writer(sent, chat=True).done({}, "hi")
    assert "message" not in sent.bodies[-1]
    small = Sent(packet_max=PACKET_MARGIN + 1200)
    writer(small, stream=False, chat=True).done({}, "x" * 700)
    assert "message" not in small.bodies[-1] and small.bodies[-1]["text"] == "x" * 700


def test_an_ack_is_the_first_frame():
    """It counts as one, so that readers miss nothing."""
    sent = Sent()
    writer(sent).ack({"queue_len": 2})
    out = writer(sent, seq=1)
    out.push("a")
    out.done({}, "a")
    assert [(body["t"], body["seq"]) for body in sent.bodies] == [("ack", 0), ("delta", 1), ("done", 2)]
    assert ("eb-status", "202") in sent.messages[0].user
