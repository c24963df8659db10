"""Lines that people wrote, from public data sets, as calls of ours where they are clear, as refusals where outside.

Sources and licences: data/README.md.
"""

import re
from dataclasses import dataclass
from functools import cache

from recipes.assistant.intents import NONE, Call
from recipes.assistant.words import lines, words

NLU_INTENTS = {
    "audio_volume_mute": "mute", "audio_volume_up": "volume_up", "audio_volume_down": "volume_down",
    "iot_coffee": "make_coffee", "iot_cleaning": "vacuum_start", "weather_query": "get_weather",
    "alarm_query": "get_alarms", "alarm_remove": "cancel_alarm", "general_joke": "joke", "general_praise": "thanks",
    "iot_hue_lighton": "turn_on", "iot_hue_lightoff": "turn_off", "iot_hue_lightup": "brighten",
    "iot_hue_lightdim": "dim", "iot_hue_lightchange": "set_color", "iot_wemo_on": "turn_on",
    "iot_wemo_off": "turn_off", "datetime_query": "get_time", "play_music": "play", "play_radio": "play",
    "play_podcasts": "play", "play_audiobook": "play",
}  # fmt: skip
CLINC_INTENTS = {
    "time": "get_time", "date": "get_date", "weather": "get_weather", "greeting": "hello", "goodbye": "goodbye",
    "thank_you": "thanks", "tell_joke": "joke", "what_is_your_name": "who_are_you", "who_made_you": "who_are_you",
    "are_you_a_bot": "who_are_you", "how_old_are_you": "who_are_you", "what_can_i_ask_you": "what_can_you_do",
    "where_are_you_from": "who_are_you", "next_song": "media_next",
}  # fmt: skip
REFUSED_NLU = ("qa_", "email_", "social_", "transport_", "takeaway_", "recommendation_", "cooking_", "music_query",
               "news_query", "play_game", "calendar_", "datetime_convert", "general_quirky")  # fmt: skip
UNCLEAR_CLINC = {
    "todo_list", "todo_list_update", "shopping_list", "shopping_list_update", "smart_home", "cancel", "repeat", "yes",
    "no", "maybe", "timer", "alarm", "change_volume", "play_music", "reset_settings", "sync_device",
    "update_playlist", "timezone", "change_ai_name", "how_busy", "who_do_you_work_for",
}  # fmt: skip
ELSEWHERE = r"\b(in|at) (?!the moment)\w+|zone|\b(est|pst|gmt|from now|ago|will it be)\b"  # not this clock, or not now


@dataclass(frozen=True, slots=True)
class PublicLine:
    """A line of a public data set with the call it asks for."""

    text: str
    call: Call
    origin: str


def read_rows(name: str) -> list[tuple[str, str, dict[str, str]]]:
    """Rows of a table in data/: the source's own intent, the text in lower case, the source's own slots."""
    rows = []
    for line in lines(name):
        intent, text, slots = line.split("\t")
        rows.append((intent, text.lower(), dict(slot.split("=", 1) for slot in slots.split("|") if slot)))
    return rows


def light_of(text: str, slots: dict[str, str]) -> str:
    """The light that a row of the NLU data speaks of."""
    noun = "lamp" if "lamp" in text else "light" if re.search(r"\blight\b", text) else "lights"
    place = slots.get("house_place", "")
    return f"{place} {noun}" if place and place not in ("house", "home", "room") else noun


def light_call(intent: str, text: str, slots: dict[str, str]) -> Call | None:
    """The call of a line about the lights; None where its target or value is not clear."""
    if re.search(r"\b(all|every|everywhere|off and|on and)\b", text):
        return None
    name = light_of(text, slots)
    if intent == "set_color":
        color = slots.get("color_type", "")
        return {"intent": intent, "name": name, "color": color} if color in words("color") else None
    return None if re.search(r"\d|percent", text) else {"intent": intent, "name": name}


def nlu_call(source: str, text: str, slots: dict[str, str]) -> Call | None:
    """The call that a row of the NLU data asks for; None where our answers have no clear place for it."""
    if source.startswith(REFUSED_NLU):
        return {"intent": NONE}
    intent = NLU_INTENTS.get(source)
    if intent is None or (source.startswith("audio") and re.search(r"\d|percent|zero|ten|fifty|\bto\b", text)):
        return None
    if source == "datetime_query":
        if re.search(ELSEWHERE, text):
            return None
        return {"intent": "get_date" if re.search(r"\b(day|date|month|year|week)", text) else "get_time"}
    if intent == "play":
        match = re.fullmatch(r"(?:please )?play (?:me )?((?:\w+ ?){1,5})", text)
        return {"intent": intent, "media": match[1].strip()} if match else None
    if source.startswith("iot_wemo"):
        device = slots.get("device_type", "")
        return {"intent": intent, "name": device} if device and f" {device}" in f" {text}" else None
    if source.startswith("iot_hue"):
        return light_call(intent, text, slots)
    return {"intent": intent}


def clinc_call(source: str, text: str) -> Call | None:
    """The call that a row of CLINC150 asks for; None where our answers have no clear place for it."""
    if source in ("time", "date") and re.search(ELSEWHERE, text):
        return None
    if source in CLINC_INTENTS:
        return {"intent": CLINC_INTENTS[source]}
    return None if source in UNCLEAR_CLINC else {"intent": NONE}


@cache
def public_lines(part: str) -> list[PublicLine]:
    """All usable rows of the public data sets; `part` is 'train' or 'test'."""
    found = []
    for source, text, slots in read_rows(f"nlu_{part}.tsv"):
        if call := nlu_call(source, text, slots):
            found.append(PublicLine(text, call, f"nlu:{source}"))
    for source, text, _ in read_rows(f"clinc_{part}.tsv"):
        if call := clinc_call(source, text):
            found.append(PublicLine(text, call, f"clinc:{source}"))
    for source, text, _ in read_rows(f"snips_{part}.tsv"):
        if not re.match(r"(please )?(play|i want to (hear|listen))\b", text):
            found.append(PublicLine(text, {"intent": NONE}, f"snips:{source}"))
    return found
