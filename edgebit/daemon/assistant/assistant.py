"""From what a model has said under its schema to a call and a sentence: the answers of the operation `assist`.

An answer is one JSON object, `intent` first and `say` last (docs/mqtt.md). Where the intent asks about the device the
sentence is the daemon's own.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from edgebit.daemon.assistant.known_devices import KnownDevices
from edgebit.daemon.assistant.own_facts import OwnFacts, own_figure
from edgebit.daemon.assistant.said_numbers import misheard
from edgebit.daemon.assistant.sentences import TOPICS
from edgebit.daemon.contract.messages import Refusal

DEVICE_INTENTS = "device_"
MISHEARD = "I am not sure: you said {}, and I understood {}."
UNKNOWN_DEVICE = "I do not know a device called {!r} here."
NO_CALL = "none"  # the intent of what asks for nothing that can be done
UNKNOWN_TOPIC = "That I cannot tell about this device."
Speaker = Literal["model", "device"]


class Drawn(Protocol):
    """What the model has come to: runtime's Answer is one."""

    text: str
    tokens: list[int]
    done_reason: Any
    decode_ns: int


@dataclass(frozen=True, slots=True)
class Said:
    """What a question is answered with."""

    text: str
    call: Mapping[str, Any]
    speaker: Speaker
    figures: Mapping[str, Any] = field(default_factory=dict)  # what the device's own sentence tells

    def to_json(self) -> dict[str, Any]:
        """The fields of a reply beside its text."""
        body: dict[str, Any] = {"call": dict(self.call), "speaker": self.speaker}
        return {**body, "figures": dict(self.figures)} if self.figures else body

    def texts(self) -> Iterator[str]:
        """All in it that the model or a caller has had a part in, for a filter."""
        yield self.text
        yield from _strings(self.call)


class Assistant:
    """From any thread."""

    def __init__(self, facts: Callable[[], OwnFacts], devices: Sequence[str] = ()) -> None:
        """`facts` gives what the device knows of itself now. `devices`: those a call may name; empty: any."""
        self._facts = facts
        self._devices = KnownDevices(devices)

    def reply(self, line: str, drawn: Drawn) -> Said:
        """What is said to `line`, and the call. Raises Refusal, 422, where the answer was cut before its end."""
        call = _object(drawn)
        said = call.pop("say", None)
        intent = call.get("intent")
        if isinstance(intent, str) and intent.startswith(DEVICE_INTENTS):
            return self._of_device(intent, call, drawn)
        if found := misheard(line, call):
            return Said(MISHEARD.format(*found), {"intent": NO_CALL}, "device")
        return self._of_house(Said(said if isinstance(said, str) else drawn.text, call, "model"))

    def _of_house(self, said: Said) -> Said:
        """A call for a device that there is, by its own name; else none."""
        name = said.call.get("name")
        if not self._devices or not isinstance(name, str):
            return said
        known = self._devices.meant_by(name)
        if known is None:
            return Said(UNKNOWN_DEVICE.format(name), {"intent": NO_CALL}, "device")
        # With what follows it in the word: a call for the lamp may be told of as the lamps.
        text = re.sub(rf"(?<!\w){re.escape(name)}\w*", lambda _: known, said.text) if name != known else said.text
        return dataclasses.replace(said, text=text, call={**said.call, "name": known})

    def _of_device(self, intent: str, call: Mapping[str, Any], drawn: Drawn) -> Said:
        topic = TOPICS.get(intent)
        if topic is None:
            return Said(UNKNOWN_TOPIC, call, "device")
        facts = self._facts()
        speed = own_figure("answer_tok_s", "tok/s", _tok_s(drawn), "nothing was computed for this answer")
        figures = {**facts.figures, speed.name: speed}
        facts = dataclasses.replace(facts, figures=figures)
        told = {name: figures[name].to_json() for name in topic.figures if name in figures}
        return Said(topic.sentence(facts), call, "device", told)


def _object(drawn: Drawn) -> dict[str, Any]:
    """The object that the model's schema has made it say. Raises Refusal."""
    try:
        value = json.loads(drawn.text)
    except ValueError as error:
        if drawn.done_reason == "stop":
            raise Refusal(500, "engine", f"the model's answer is not the JSON of its schema: {error}") from error
        words = f"the answer was cut after {len(drawn.tokens)} tokens, and a part of a call is none: allow it more"
        raise Refusal(422, "incomplete_answer", words) from error
    if not isinstance(value, dict):
        raise Refusal(400, "not_supported_by_model", "this model's schema asks for no object: it makes no calls")
    return value


def _tok_s(drawn: Drawn) -> float | None:
    return round(1e9 * len(drawn.tokens) / drawn.decode_ns, 1) if drawn.tokens and drawn.decode_ns else None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
