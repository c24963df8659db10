"""Home Assistant's own test sentences as calls of ours, where its slots name one clearly. Never trained on.

Its slots carry the house of its tests (a light is found by its area, though no area was said); ours carry what was
said. So a target is read from the sentence with the help of its slots; one without a clear reading is left out.
"""

import re

from recipes.assistant.intents import Call
from recipes.assistant.public_rows import read_rows

NOUNS = ("lights?|lamps?|lighting|fans?|switch(?:es)?|blinds?|curtains?|shutters?|shades?|doors?|garage doors?|"
         "windows?|locks?|valves?|gates?")  # fmt: skip

FIXED = {
    "HassPauseTimer": "pause_timer", "HassUnpauseTimer": "resume_timer", "HassCancelTimer": "cancel_timer",
    "HassCancelAllTimers": "cancel_timer", "HassTimerStatus": "timer_status", "HassMediaNext": "media_next",
    "HassMediaPrevious": "media_previous", "HassMediaPause": "media_pause", "HassMediaUnpause": "media_resume",
    "HassGetWeather": "get_weather", "HassGetCurrentTime": "get_time", "HassGetCurrentDate": "get_date",
    "HassVacuumStart": "vacuum_start", "HassVacuumReturnToBase": "vacuum_dock",
}  # fmt: skip
TIMERS = {"HassStartTimer": "start_timer", "HassIncreaseTimer": "extend_timer", "HassDecreaseTimer": "shorten_timer"}
STATES = {"on": "on", "off": "off", "open": "open", "closed": "closed", "locked": "locked", "unlocked": "unlocked"}


def target(text: str, slots: dict[str, str]) -> str | None:
    """The device that a sentence speaks of, in our form; None where that is not clear."""
    if re.search(r"\b(all|every|everywhere|everything|any|which|how many|house|home|here|floor)\b", text):
        return None
    name = slots.get("name", "").lower().strip()
    if name and name != "all":
        return name if re.search(rf"\b{re.escape(name)}\b", text) else None
    area = slots.get("area", "").lower()
    nouns = re.findall(rf"\b({NOUNS})\b", text)
    if len(nouns) != 1 or (area and f" {area}" in f" {text}" and area.endswith(nouns[0])):
        return None
    return f"{area} {nouns[0]}" if area and re.search(rf"\b{re.escape(area)}\b", text) else str(nouns[0])


def switch_intent(source: str, text: str, domain: str) -> str:
    """Our intent for HassTurnOn and HassTurnOff of a kind of device, which the verb tells where the slots do not."""
    on = source == "HassTurnOn"
    if verb := re.search(r"\b(unlock|lock|open|close|raise|lower)\b", text):
        return {"raise": "open", "lower": "close"}.get(verb[1], verb[1])
    by_domain = {"lock": ("lock", "unlock"), "cover": ("open", "close"), "valve": ("open", "close")}
    return by_domain.get(domain, ("turn_on", "turn_off"))[0 if on else 1]


def duration(slots: dict[str, str]) -> str:
    """The length of time in a timer's slots, in our form."""
    parts = [(slots[unit], unit[:-1]) for unit in ("hours", "minutes", "seconds") if unit in slots]
    return " ".join(f"{value} {unit}{'' if value == '1' else 's'}" for value, unit in parts)


def light_call(text: str, slots: dict[str, str]) -> Call | None:
    """The call of a HassLightSet sentence."""
    name = target(text, slots)
    if name is None or ("brightness" in slots) == ("color" in slots):
        return None
    if "color" in slots:
        return {"intent": "set_color", "name": name, "color": slots["color"]}
    return {"intent": "set_brightness", "name": name, "percent": int(slots["brightness"])}


def climate_call(source: str, text: str, slots: dict[str, str]) -> Call | None:
    """The call of a sentence about the temperature."""
    if "name" in slots or "floor" in slots:
        return None
    area = slots.get("area", "").lower()
    said = area if area and area in text else "home"
    if source == "HassClimateGetTemperature":
        return {"intent": "get_temperature", "area": said}
    if not re.fullmatch(r"\d+", slots.get("temperature", "")):
        return None
    return {"intent": "set_temperature", "area": said, "degrees": int(slots["temperature"])}


def home_assistant_call(source: str, text: str, slots: dict[str, str]) -> Call | None:
    """Our call for a sentence of Home Assistant's tests; None where there is no clear one."""
    domain = slots.get("domain", "")
    if source in FIXED:
        return {"intent": FIXED[source]}
    if source in TIMERS and duration(slots):
        return {"intent": TIMERS[source], "duration": duration(slots)}
    if source.startswith("HassClimate"):
        return climate_call(source, text, slots)
    if source == "HassLightSet":
        return light_call(text, slots)
    if source == "HassSetVolume":
        return {"intent": "set_volume", "percent": int(slots["volume_level"])}
    name = target(text, slots)
    if name is None:
        return None
    if source in ("HassTurnOn", "HassTurnOff") and domain not in ("scene", "script"):
        return {"intent": switch_intent(source, text, domain), "name": name}
    if source == "HassSetPosition":
        return {"intent": "set_position", "name": name, "percent": int(slots["position"])}
    asked = re.match(r"(is|are) ", text) and domain in ("light", "switch", "fan", "cover", "lock")
    if source == "HassGetState" and asked and slots.get("state") in STATES:
        return {"intent": "get_state", "name": name, "state": STATES[slots["state"]]}
    return None


def home_assistant_calls() -> list[tuple[str, Call, str]]:
    """Each sentence with a clear reading: the text, our call, Home Assistant's intent."""
    found = []
    for source, text, slots in read_rows("home_assistant_test.tsv"):
        if call := home_assistant_call(source, text, slots):
            found.append((text, call, source))
    return found
