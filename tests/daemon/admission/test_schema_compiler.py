"""Whose schemas are compiled, and when one caller's have taken all the time that they may."""

import json

import pytest
from admission_fixtures import Device

from edgebit.daemon.admission import schema_compiler
from edgebit.daemon.admission.schema_compiler import CALLERS_MAX, MOST_S, OTHERS, REMEMBERED, WINDOW_S, SchemaCompiler
from edgebit.daemon.config.sections import MqttConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.errors import SchemaError


class Timed:
    """A compiler each of whose schemas takes `took_s`; one that begins with `bad` cannot be followed."""

    def __init__(self, took_s=1.0, name_of=str):
        self.now, self.took_s, self.seen = 0.0, took_s, []
        self.compiler = SchemaCompiler(name_of, self._compile, lambda: self.now)

    def _compile(self, text):
        self.seen.append(text)
        self.now += self.took_s
        if text.startswith("bad"):
            raise SchemaError("#: no")
        return text.encode()

    def ask(self, text, who="mallory", **named):
        """The program, or the status and the wait of the refusal."""
        try:
            return self.compiler.program(who, text, **named)
        except Refusal as refusal:
            return refusal.status, refusal.retry_after_ms


@pytest.mark.parametrize(("text", "gives"), [("good", b"good"), ("bad", (400, None))])
def test_the_same_schema_is_compiled_once(text, gives):
    """One that cannot be followed too: that was what took the most time."""
    timed = Timed()
    assert [timed.ask(text), timed.ask(text, "alice")] == [gives, gives]
    assert timed.seen == [text]


def test_a_hostile_sender_holds_up_others_for_a_part_of_the_time_only():
    """Who has had his time is refused before anything is compiled, until the moment that he is told; others are not."""
    timed = Timed()
    answers = [timed.ask(f"bad {number}") for number in range(100)]
    assert len(timed.seen) <= MOST_S / timed.took_s + 1
    status, wait_ms = answers[-1]
    assert status == 429
    assert timed.ask("good", "alice") == b"good"
    assert timed.ask("good") == b"good"  # known, so it takes no time
    timed.now += wait_ms / 1000
    assert timed.ask("bad again") == (400, None)


def test_those_who_cannot_be_told_apart_have_one_share():
    """In mode `open` a caller who is refused takes another name."""
    timed = Timed(took_s=MOST_S + 1, name_of=lambda principal: "(everyone)")
    assert timed.ask("bad") == (400, None)
    assert timed.ask("good", "another")[0] == 429


def test_what_was_accepted_before_a_restart_is_not_charged():
    """It was charged then."""
    timed = Timed(took_s=MOST_S + 1)
    for number in range(3):
        assert timed.ask(f"good {number}", charged=False) == f"good {number}".encode()


def test_made_up_names_fill_no_memory():
    """They share one account once the table is full, and it is empty again when their time is over."""
    timed = Timed(took_s=0.001)
    for number in range(2 * CALLERS_MAX):
        timed.ask(f"good {number}", f"name {number}")
    assert len(timed.compiler._spent) == CALLERS_MAX + 1 and OTHERS in timed.compiler._spent
    assert len(timed.compiler._known) == REMEMBERED
    timed.now += 2 * WINDOW_S
    timed.ask("good", "alice")
    assert set(timed.compiler._spent) == {"alice"}


def test_in_admission(tmp_path, monkeypatch):
    """A caller's next schema is refused with the time after which it is taken, and another caller's job goes on."""
    monkeypatch.setattr(schema_compiler, "MOST_S", 0.0)
    device = Device(tmp_path / "journal", mqtt=MqttConfig(auth="topic"))
    try:
        question = {"prompt": "a", "max_tokens": 2}
        bad, worse = ({**question, "format": {"type": name}} for name in ("no such", "nor such"))
        device.take(("generate", {"id": "first", **bad}), ("generate", {"id": "second", **worse}))
        device.admission.take([device.message("generate", {"id": "third", **question}, 3)])
        first, second, third = device.run(*(f"edgebit/v1/pi/out/alice/{name}" for name in ("first", "second", "third")))
        assert (first["error"]["code"], second["error"]["code"]) == ("bad_schema", "rate_limit")
        assert second["error"]["retry_after_ms"] > 0 and "text" in third
        bobs = device.message("generate", {"id": "his", **question, "format": {"type": "null"}}, 4)
        object.__setattr__(bobs, "topic", bobs.topic.replace("alice", "bob"))
        device.admission.take([bobs])
        (his,) = device.run("edgebit/v1/pi/out/bob/his")
        assert "error" not in his, json.dumps(his)
    finally:
        device.serving.stop()
