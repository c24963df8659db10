"""From a model's JSON to a call and a sentence."""

import json

import pytest
from serving_fixtures import OWN_FACTS

from edgebit.daemon.assistant.assistant import UNKNOWN_TOPIC, Assistant
from edgebit.daemon.assistant.sentences import TOPICS
from edgebit.daemon.contract.messages import Refusal
from edgebit.runtime.generation import Answer

ASSISTANT = Assistant(lambda: OWN_FACTS)


def reply(call, done_reason="stop", tokens=4, decode_ns=10**9, of=ASSISTANT, line="do it"):
    text = call if isinstance(call, str) else json.dumps(call)
    answer = Answer(prompt_tokens=3, text=text, tokens=list(range(tokens)), done_reason=done_reason)
    answer.decode_ns = decode_ns
    return of.reply(line, answer)


def test_a_command_is_the_models():
    """The call is the object without what is said."""
    said = reply({"intent": "set_brightness", "name": "lamp", "percent": 40, "say": "Setting the lamp."})
    assert said.text == "Setting the lamp."
    assert said.to_json() == {
        "call": {"intent": "set_brightness", "name": "lamp", "percent": 40},
        "speaker": "model",
    }


HOUSE = Assistant(lambda: OWN_FACTS, ("Bedroom lamp", "bathroom lamp", "blind 1", "blind 2", "back door"))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("bedroom lamp", "Bedroom lamp"),
        ("bathroom lamp", "bathroom lamp"),  # as close to another one, and it is there itself
        ("bedrom lamp", "Bedroom lamp"),
        ("the back door", "back door"),
        ("blind 2", "blind 2"),
        ("blind 3", None),
        ("blind", None),
        ("bedbathroom lamp", None),  # close to two
        ("front door", None),
        ("", None),
    ],
)
def test_the_names_of_a_house(name, known):
    """A call is for a device that there is, by its own name, which is said as well; else there is none."""
    said = reply({"intent": "turn_on", "name": name, "say": f"Turning on the {name}."}, of=HOUSE)
    if known is None:
        assert (said.to_json(), said.text) == ({"call": {"intent": "none"}, "speaker": "device"},
                                               f"I do not know a device called {name!r} here.")  # fmt: skip
    else:
        assert said.call == {"intent": "turn_on", "name": known}
        assert (said.text, said.speaker) == (f"Turning on the {known}.", "model")


@pytest.mark.parametrize("known", ["attic lamps", "attic lamp", "Attic Lamp", "attic-lamp"])
def test_a_name_is_told_as_the_house_has_it(known):
    """Where the model says more of it than its call has, too."""
    call = {"intent": "turn_on", "name": "attic lamp", "say": "Turning on the attic lamps."}
    said = reply(call, of=Assistant(lambda: OWN_FACTS, (known,)))
    told = "attic lamps" if known == "attic lamp" else known
    assert (said.call["name"], said.text) == (known, f"Turning on the {told}.")


def test_a_house_with_names_and_a_call_without():
    """Nothing is asked of it."""
    call = {"intent": "set_temperature", "area": "attic", "degrees": 20}
    assert reply({**call, "say": "Setting."}, of=HOUSE).call == call
    assert reply({"intent": "device_model", "say": ""}, of=HOUSE).speaker == "device"


def test_a_number_that_was_not_said():
    """Nothing is to be done, and both numbers are told; the model's own words for it are not."""
    call = {"intent": "set_brightness", "name": "lamp", "percent": 25, "say": "Setting the lamp to 25 percent."}
    said = reply(call, line="set the lamp to 250 percent")
    assert said.to_json() == {"call": {"intent": "none"}, "speaker": "device"}
    assert said.text == "I am not sure: you said 250, and I understood 25."
    assert reply(call, line="set the lamp to 25 percent").call["percent"] == 25


def test_a_question_about_the_device_is_the_daemons():
    """Whatever the model says of itself, the figures are those of the sensors, with unit, source and age."""
    said = reply({"intent": "device_temperature", "say": "I am at 20 degrees."})
    assert said.text == "The chip is at 51.5 °C, by cpu-thermal."
    body = said.to_json()
    assert (body["call"], body["speaker"]) == ({"intent": "device_temperature"}, "device")
    assert body["figures"] == {"t_soc": OWN_FACTS.figures["t_soc"].to_json()}


@pytest.mark.parametrize("intent", TOPICS)
def test_every_device_intent_has_words_of_its_own(intent):
    """None of the model's come through."""
    assert reply({"intent": intent, "say": "made up"}).text not in ("made up", UNKNOWN_TOPIC)


def test_an_intent_that_came_with_a_newer_model():
    """It is not answered with the model's figures either."""
    said = reply({"intent": "device_colour", "say": "I am blue."})
    assert (said.text, said.speaker) == (UNKNOWN_TOPIC, "device")


def test_the_speed_of_this_answer():
    """Its own tokens over its own time; one that was known has none."""
    figures = reply({"intent": "device_speed", "say": ""}, tokens=30, decode_ns=10**8).to_json()["figures"]
    assert figures["answer_tok_s"]["value"] == 300.0
    figures = reply({"intent": "device_speed", "say": ""}, decode_ns=0).to_json()["figures"]
    assert "value" not in figures["answer_tok_s"] and figures["answer_tok_s"]["absent"]


@pytest.mark.parametrize("text", ['{"intent":"none","sa', "", '{"intent":'])
def test_a_cut_answer_is_an_error(text):
    """There is no call in a part of one."""
    with pytest.raises(Refusal) as refused:
        reply(text, done_reason="length")
    assert (refused.value.status, refused.value.code) == (422, "incomplete_answer")


def test_an_answer_that_ends_with_the_last_token_allowed():
    """It is whole, and so it is one."""
    assert reply({"intent": "none", "say": "Sorry."}, done_reason="length").text == "Sorry."


def test_a_model_that_makes_no_calls():
    """A schema that asks for a list, or an answer that is not its schema's."""
    with pytest.raises(Refusal, match="makes no calls"):
        reply("[1]")
    with pytest.raises(Refusal, match="not the JSON of its schema"):
        reply("nonsense")


def test_what_is_filtered():
    """All that the model has chosen, as it is told: names and values at any depth."""
    said = reply({"intent": "x", "where": {"room": ["a\nb"]}, "say": "\u00fcber"})
    assert list(said.texts()) == ["über", "intent", "x", "where", "room", "a\nb"]
