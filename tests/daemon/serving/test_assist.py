"""An assistant's answer from engine to caller: nothing before it is complete, filtered as it is told, kept as drawn."""

import dataclasses
import json

import pytest
from serving_fixtures import Engine, Serving, job, wait_for

from edgebit.bundle.prompt_program import Message
from edgebit.daemon.config.safeguards import ContentFilterConfig
from edgebit.daemon.content_filter.content_filter import ContentFilter


class Speaking(Engine):
    """Says a text, a character a token."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def answer_key(self, request, ids):
        return b"the same"

    def step(self, generations, prompt_most):
        shown = []
        for each in generations:
            each.prompt_left, each.answer.prompt_ns = 0, 1
            number = len(each.answer.tokens)
            each.done = number in (len(self.text), each.max_tokens)
            each.answer.done_reason = "stop" if number == len(self.text) else "length"
            if not each.done:
                each.answer.tokens.append(number)
                each.answer.text += self.text[number]
                each.answer.decode_ns += 1000
            shown.append((each, [] if each.done else [self.text[number]]))
        return shown


def said(call, ask=200, guard=None, times=1, line="do it"):
    """The last frames of as many equal questions, one after the other."""
    serving = Serving(Speaking(json.dumps(call))).start()
    for number in range(times):
        asked = job("alice", f"j{number}", ask, op="assist")
        heard = (Message("user", line),)
        asked.request = dataclasses.replace(asked.request, stream=False, prompt=None, messages=heard)
        asked.filter = guard
        serving.ask(asked)
        wait_for(lambda: f"alice/j{number}" in serving.heard.bodies)  # noqa: B023
    serving.stop()
    assert not serving.heard.deltas, "no part of the JSON is seen"
    return [serving.heard.bodies[f"alice/j{number}"] for number in range(times)]


def test_a_known_answer_has_figures_of_now():
    """What is kept is what the model has drawn, not what the device said."""
    first, again = said({"intent": "device_speed", "say": "fast"}, times=2)
    assert "cached" not in first and again["cached"]
    assert first["figures"]["answer_tok_s"]["value"] == 1e6
    assert "absent" in again["figures"]["answer_tok_s"]
    assert first["text"] != again["text"] != "fast"


def test_a_number_that_was_not_said():
    """The call is held against the line that was asked."""
    call = {"intent": "set_volume", "percent": 25, "say": "Setting the volume to 25 percent."}
    (body,) = said(call, line="volume 250")
    assert (body["call"], body["speaker"]) == ({"intent": "none"}, "device")
    (body,) = said(call, line="volume 25")
    assert body["call"] == {"intent": "set_volume", "percent": 25}


def test_a_cut_answer():
    """An error, with the figures of the job and without a call."""
    (body,) = said({"intent": "none", "say": "Sorry."}, ask=5)
    assert body["error"]["code"] == "incomplete_answer" and "call" not in body and body["eval_count"] == 5


@pytest.mark.parametrize(
    "call",
    [
        {"intent": "none", "say": "a f\u00fcrball"},  # spelled \u00fc in the JSON
        {"intent": "note", "words": ["x", "f\u00fcrball"], "say": "Noted."},
        {"intent": "note", "f\u00fcrball": 1, "say": "Noted."},
    ],
)
def test_the_owners_rules_hold_for_what_is_told(tmp_path, call):
    """However the model spells it, and wherever in the call it stands."""
    rules = tmp_path / "rules"
    rules.write_text("word answer fürball\n")
    content_filter = ContentFilter(ContentFilterConfig(rules=str(rules)))
    (body,) = said(call, guard=content_filter.guard(["a"]))
    assert body["error"]["code"] == "response_filtered"
    (allowed,) = said({"intent": "none", "say": "Fine."}, guard=content_filter.guard(["a"]))
    assert allowed["text"] == "Fine."
