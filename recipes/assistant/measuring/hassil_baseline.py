"""A baseline of rules: `hassil` with Home Assistant's own English templates, in a house that has all that is spoken of.

Needs `pip install hassil home-assistant-intents`. Its slots become calls as those of Home Assistant's test sentences
do, so both are read alike. The house has the names of its tests and those of the lines asked about, each as the kind of
device that the call speaks of: more than any real house would tell a grammar. It has no state, and nobody is in a room.
"""

import re
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

from recipes.assistant.examples import Example
from recipes.assistant.home_assistant import NOUNS, home_assistant_call
from recipes.assistant.intents import NONE, Call
from recipes.assistant.words import lines

KINDS = {"set_brightness": "light", "brighten": "light", "dim": "light", "set_color": "light", "lock": "lock",
         "unlock": "lock", "open": "cover", "close": "cover", "set_position": "cover",
         "set_fan_speed": "fan"}  # fmt: skip
KINDS_OF_NOUNS = (("light|lamp|bulb|chandelier", "light"), ("fan", "fan"), ("lock", "lock"),
         ("blind|curtain|shutter|shade|door|window|gate", "cover"), ("tv|radio|speaker", "media_player"))  # fmt: skip
# Our intents that no template of Home Assistant's stands for: device_* and the like are not asked of it.
KNOWN = ("turn_on", "turn_off", "set_brightness", "set_color", "lock", "unlock", "open", "close", "set_position",
         "get_state", "set_temperature", "get_temperature", "start_timer", "extend_timer", "shorten_timer",
         "cancel_timer", "pause_timer", "resume_timer", "timer_status", "media_pause", "media_resume", "media_next",
         "media_previous", "set_volume", "vacuum_start", "vacuum_dock", "get_time", "get_date",
         "get_weather")  # fmt: skip


def is_known(example: Example) -> bool:
    """Whether Home Assistant has an intent for it that a call of ours stands for."""
    return example.intent in KNOWN and example.call.get("state") != "any"


def kind_of(call: Call) -> str:
    """The kind of device that a call speaks of, as Home Assistant calls it."""
    name, intent = str(call["name"]), str(call["intent"])
    if intent == "get_state" and call["state"] in ("locked", "unlocked"):
        return "lock"
    named = next((kind for nouns, kind in KINDS_OF_NOUNS if re.search(nouns, name)), "switch")
    return KINDS.get(intent, named)


def said(value: object) -> str:
    """A slot's value as text: a whole number without its decimals."""
    return f"{value:g}" if isinstance(value, float) else str(value)


class HassilBaseline:
    """The recogniser of Home Assistant's sentences, in a house made for some examples."""

    def __init__(self, examples: Sequence[Example]) -> None:
        """Raises ImportError where hassil or its sentences are not installed."""
        self._hassil: Any = import_module("hassil")
        content = import_module("home_assistant_intents").get_intents("en")
        self.version = f"hassil {metadata.version('hassil')}, sentences {metadata.version('home-assistant-intents')}"
        self._intents = self._hassil.Intents.from_dict(content)
        house = [tuple(line.split("\t")) for line in lines("home_assistant_house.tsv")]
        areas = {name for kind, name in house if kind == "area"}
        areas |= {str(example.call["area"]) for example in examples if example.call.get("area", "home") != "home"}
        named = {(kind, name) for kind, name in house if kind not in ("area", "floor")}
        own = {str(example.call["name"]): kind_of(example.call) for example in examples if "name" in example.call}
        named |= {(kind, name) for name, kind in own.items() if not re.fullmatch(NOUNS, name)}
        self._lists = {
            "name": self._list([(name, name, {"domain": kind}) for kind, name in sorted(named)]),
            "area": self._list([(name, name, {}) for name in sorted(areas)]),
            "floor": self._list([(name, name, {}) for kind, name in house if kind == "floor"]),
        }

    def _list(self, rows: list[tuple[str, str, dict[str, str]]]) -> Any:
        return self._hassil.intents.TextSlotList.from_tuples(rows, name="list", allow_template=False)

    def call(self, text: str) -> Call:
        """The call that the grammar's best match stands for; `none` without a match or a clear reading."""
        line = re.sub(r"[.!?]+$", "", text.lower())
        found = self._hassil.recognize_best(line, self._intents, slot_lists=self._lists, best_slot_name="name")
        if found is None:
            return {"intent": NONE}
        slots = {name: said(entity.value) for name, entity in found.entities.items()}
        context = {name: str(value) for name, value in found.context.items() if isinstance(value, str)}
        return home_assistant_call(found.intent.name, line, {**context, **slots}) or {"intent": NONE}
