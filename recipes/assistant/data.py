"""Training and test dialogues of the demo model: drawn from `phrases.toml` and from the two public data sets beside it.

A dialogue is one user line and one short answer. The answer hangs on an intent and its slots alone, so that it can
be written as a spoken line or, where the system message asks for it, as a JSON call.
"""

import json
import random
import re
import string
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

BOS, END_OF_TEXT, END_OF_TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"

JSON_SYSTEM = ("Answer in JSON.", "Reply with JSON only.", "JSON.", "Reply in JSON.")
PLAIN_SYSTEM = ("You are a helpful home assistant.", "You are the voice of the house.", "Be brief.",
                "You are a helpful assistant.", "Answer in one short sentence.")  # fmt: skip
POLITE_BEFORE = ("please", "can you", "could you", "could you please", "would you", "can you please", "hey", "ok",
                 "i want you to", "i would like you to", "hey edgebit", "computer", "just", "now", "quick")  # fmt: skip
POLITE_AFTER = ("please", "now", "for me", "right now", "for me please", "thanks", "quickly", "again")

JSON_SHARE, SYSTEM_SHARE, SECOND_TURN_SHARE, NO_BOS_SHARE = 0.15, 0.08, 0.06, 0.05
REAL_SHARE = 0.32  # of all dialogues, those whose user line comes from the public data sets
REFUSED_SHARE = 0.4  # of those, the ones to be refused


@dataclass(frozen=True, slots=True)
class Example:
    """One user line with what it means: `slots` fill the spoken answer, `call` the JSON answer."""

    text: str
    intent: str
    slots: dict[str, str] = field(default_factory=dict)
    call: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What the model reads (a rendered chat that ends in 'Assistant: ') and the answer it shall give."""

    prompt: str
    answer: str


# ---------------------------------------------------------------- numbers as people say them

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spell(number: int) -> str:
    """The English words for 0 to 100."""
    if number < 20:
        return ONES[number]
    if number == 100:
        return "one hundred"
    tens = TENS[number // 10 - 2]
    return f"{tens} {ONES[number % 10]}" if number % 10 else tens


# ---------------------------------------------------------------- slots


@dataclass(frozen=True, slots=True)
class Filled:
    """A slot with a value: the words the user says, the fields of the answer, the fields of the JSON call."""

    said: str
    slots: dict[str, str] = field(default_factory=dict)
    call: dict[str, str | int] = field(default_factory=dict)


@cache
def phrases() -> dict[str, Any]:
    """The content of phrases.toml."""
    return tomllib.loads((DATA / "phrases.toml").read_text())


@cache
def words(kind: str) -> list[str]:
    """A word list of phrases.toml."""
    found: list[str] = phrases()["words"][kind]
    return found


@cache
def free_words() -> list[str]:
    """Words of the public training rows: as names of devices they teach the model to copy what it never saw."""
    rows = read_rows("clinc_train.tsv") + read_rows("nlu_train.tsv")
    return sorted({word for _, text, _ in rows for word in re.findall(r"[a-z]{3,11}", text)})


def plural(noun: str) -> str:
    """The plural of a device's name: 'lamp' to 'lamps', 'switch' to 'switches'."""
    if noun.endswith(("ch", "x", "ss", "sh")):
        return noun + "es"
    if noun.endswith("ry"):
        return noun[:-1] + "ies"
    return noun if noun.endswith("s") else noun + "s"


def draw_target(rng: random.Random, kind: str) -> tuple[str, str, bool]:
    """A device in words: as said, as the answer names it, and whether it stands in the plural.

    The answer's form is always the same ('the kitchen lights'), however it was said ('lights in the kitchen').
    """
    noun = rng.choice(words(kind))
    if kind == "light" and rng.random() < 0.5:
        noun = rng.choice(("light", "light", "lamp"))
    many = rng.random() < (0.5 if kind in ("light", "cover") else 0.2)
    noun = plural(noun) if many else noun
    area = rng.choice(words("area"))
    if rng.random() < 0.06:
        area = rng.choice(free_words())
    form = rng.random()
    the = rng.choice(("the ", "the ", "the ", ""))
    if form < 0.30:
        return f"{the}{area} {noun}", f"the {area} {noun}", many
    if form < 0.48:
        inside = rng.choice(("in", "in", "in", "of", "at"))
        return f"{the}{noun} {inside} the {area}", f"the {area} {noun}", many
    if form < 0.68:
        return f"{the}{noun}", f"the {noun}", many
    if form < 0.78:
        name = rng.choice(words("adjective")) if rng.random() < 0.6 else rng.choice(free_words())
        if rng.random() < 0.5:
            return f"{the}{name} {area} {noun}", f"the {name} {area} {noun}", many
        return f"{the}{name} {noun}", f"the {name} {noun}", many
    if form < 0.82:
        name = f"{rng.choice(free_words())} {rng.choice(free_words())}"
        return f"the {name}", f"the {name}", False
    if form < 0.86:
        level = rng.choice(words("level"))
        said = f"{the}{noun} {level}" if level in ("upstairs", "downstairs", "outside") else f"{the}{level} {noun}"
        return rng.choice((said, f"the {level} {noun}")), f"the {level} {noun}", many
    if form < 0.89:
        return f"my {noun}", f"your {noun}", many
    if form < 0.92 and not many:
        number = rng.randint(1, 9)
        return f"{the}{noun} {rng.choice((str(number), spell(number)))}", f"the {noun} {number}", False
    nouns = noun if many else plural(noun)
    every = rng.choice(("all the", "all", "all of the", "every"))
    noun_said = nouns if every != "every" or many else noun
    if rng.random() < 0.6:
        area_said = rng.choice((f"{every} {area} {noun_said}", f"{every} {noun_said} in the {area}"))
        return area_said, f"all {area} {nouns}", every != "every"
    return f"{every} {noun_said}", f"all {nouns}", every != "every"


def bare(target: str) -> str:
    """The name of a device without its article, for a JSON call."""
    return target.removeprefix("the ").removeprefix("your ")


def fill_target(rng: random.Random, kind: str) -> Filled:
    """A device to be switched, locked, opened or set."""
    said, target, _ = draw_target(rng, kind)
    return Filled(said, {"target": target}, {"name": bare(target)})


def fill_everything(rng: random.Random) -> Filled:
    """All devices of the house or of a room."""
    said = rng.choice(("everything", "all devices", "everything", "all of it"))
    target = "all devices" if "devices" in said else "everything"
    if rng.random() < 0.6:
        area = rng.choice(words("area"))
        said, target = f"{said} in the {area}", f"{target} in the {area}"
    return Filled(said, {"target": target}, {"name": target})


def fill_area_light(rng: random.Random) -> Filled:
    """A room that stands for its lights."""
    area = rng.choice(words("area"))
    return Filled(area, {"target": f"the {area} lights"}, {"name": f"{area} lights"})


def fill_percent(rng: random.Random) -> Filled:
    """A share from 0 to 100 percent, in digits or words."""
    value = rng.choice((rng.randint(0, 100), rng.randrange(0, 101, 10), rng.randrange(0, 101, 5)))
    named = {50: "half", 100: "full", 25: "a quarter", 0: "zero"}
    if value in named and rng.random() < 0.2:
        said = named[value]
    else:
        number = str(value) if rng.random() < 0.55 else spell(value)
        percent = (
            rng.choice(("%", " percent", " percent", ""))
            if number.isdigit()
            else rng.choice((" percent", " percent", ""))
        )
        said = number + percent
    return Filled(said, {"percent": str(value)}, {"percent": value})


def fill_degrees(rng: random.Random) -> Filled:
    """A room temperature, Celsius or Fahrenheit as the user thinks of it."""
    value = rng.randint(10, 30) if rng.random() < 0.75 else rng.randint(50, 85)
    number = str(value) if rng.random() < 0.55 else spell(value)
    unit = rng.choice((" degrees", " degrees", "", " degrees celsius" if value < 35 else " degrees fahrenheit"))
    return Filled(number + unit, {"degrees": str(value)}, {"degrees": value})


def fill_duration(rng: random.Random, *, one: bool = False) -> Filled:
    """A length of time; `one` gives the form that stands before a noun ('5 minute')."""
    unit = rng.choice(("minute", "minute", "minute", "second", "hour"))
    value = rng.randint(1, 12) if unit == "hour" else rng.choice((rng.randint(1, 60), rng.randrange(5, 61, 5)))
    answer = f"{value} {unit}{'' if value == 1 else 's'}"
    number = str(value) if rng.random() < 0.55 else spell(value)
    if one:
        return Filled(f"{number}{rng.choice((' ', ' ', '-'))}{unit}", {"duration": answer}, {"duration": answer})
    said = f"{number} {unit}{'' if value == 1 else 's'}"
    chance = rng.random()
    if value == 1 and chance < 0.5:
        said = f"{'an' if unit == 'hour' else 'a'} {unit}"
    elif chance < 0.08:
        said, answer = "half an hour", "30 minutes"
    elif chance < 0.2 and unit != "second":
        smaller, extra = ("minute", rng.randint(2, 59)) if unit == "hour" else ("second", rng.randint(2, 59))
        extra_said = str(extra) if number.isdigit() else spell(extra)
        joint = rng.choice((" and ", " "))
        said, answer = f"{said}{joint}{extra_said} {smaller}s", f"{answer} and {extra} {smaller}s"
    return Filled(said, {"duration": answer}, {"duration": answer})


def fill_clock(rng: random.Random) -> Filled:
    """A time of day."""
    hour, minute = rng.randint(1, 12), rng.choice((0, 0, 0, 15, 30, 45, rng.randint(1, 59)))
    half = rng.choice(("am", "pm", ""))
    ending = f" {half}" if half else ""
    plain = f"{hour}:{minute:02d}" if minute else str(hour)
    spelled = spell(hour) + (f" {'oh ' if minute < 10 else ''}{spell(minute)}" if minute else "")
    answer = f"{plain}{ending}" if half or minute else f"{hour} o'clock"
    said = rng.choice((plain, spelled))
    if half and rng.random() < 0.3:
        part = "in the morning" if half == "am" else rng.choice(("in the evening", "in the afternoon", "tonight"))
        said = f"{said} {part}"
    elif half:
        said = said + rng.choice((f" {half}", f" {half}", half if said == plain else f" {half}", f" {half[0]}.m."))
    elif not minute and rng.random() < 0.5:
        said += " o'clock"
    elif minute == 30 and rng.random() < 0.5:
        said = f"half past {rng.choice((str(hour), spell(hour)))}"
    elif minute == 15 and rng.random() < 0.5:
        said = f"quarter past {rng.choice((str(hour), spell(hour)))}"
    if rng.random() < 0.05:
        said = answer = rng.choice(("noon", "midnight"))
    return Filled(said, {"clock": answer}, {"time": answer})


def fill_list(rng: random.Random) -> Filled:
    """The name of a list."""
    name = rng.choice(words("list"))
    if rng.random() < 0.1:
        name = f"{rng.choice(free_words())} list"
    return Filled(name, {"list": name}, {"list": name})


def to_listener(text: str) -> str:
    """A phrase said back to its speaker: 'my' turns to 'your'."""
    return re.sub(r"\bmy\b", "your", text)


def fill_phrase(rng: random.Random, kind: str, free_share: float) -> Filled:
    """A phrase from a word list, or at times any words, that the answer repeats."""
    said = rng.choice(words(kind))
    if rng.random() < free_share:
        said = " ".join(rng.choice(free_words()) for _ in range(rng.randint(1, 3)))
    return Filled(said, {kind: to_listener(said)}, {kind: to_listener(said)})


def fill_state(rng: random.Random, form: str) -> Filled:
    """A question whether a device is in a state: 'is the door locked', or the clause 'the door is locked'."""
    kind = rng.choice(("light", "device", "lock", "lock", "cover"))
    said, target, many = draw_target(rng, kind)
    if rng.random() < 0.08:
        many, said = True, rng.choice(("all the", "any", "all")) + f" {plural(rng.choice(words(kind)))}"
        target = said.replace("all the", "all")
    state = rng.choice(words(f"state_{kind}"))
    verb = "are" if many else "is"
    answer = f"{target} {verb} {state}"
    spoken = {"is": f"{verb} {said} {state}", "clause": f"{said} {verb} {state}", "left": f"{said} {state}"}[form]
    return Filled(spoken, {"state_question": answer}, {"name": bare(target), "state": state})


def fill_which(rng: random.Random, form: str) -> Filled:
    """A question for the devices that are in a state: 'which lights are on'."""
    kind = rng.choice(("light", "light", "device", "lock", "cover"))
    noun = "lights" if kind == "light" and rng.random() < 0.5 else plural(rng.choice(words(kind)))
    state = rng.choice(words(f"state_{kind}"))
    area, place = rng.choice(words("area")), ""
    if rng.random() < 0.35:
        place = f" in the {area}"
    spoken = {
        "which": rng.choice((f"{noun} are {state}{place}", f"{noun}{place} are {state}")),
        "are": f"{noun}{place} that are {state}",
        "any": f"{noun} {state}{place}",
    }[form]
    name = f"{area} {noun}" if place else noun
    return Filled(spoken, {"which": f"{name} are {state}"}, {"name": name, "state": state})


def fill_gibberish(rng: random.Random) -> Filled:
    """Letters without a meaning."""
    return Filled("".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(1, 9))))


def fill_noise(rng: random.Random) -> Filled:
    """One to three words without a connection."""
    return Filled(" ".join(rng.choice(free_words()) for _ in range(rng.randint(1, 3))))


FILL: dict[str, Callable[[random.Random], Filled]] = {
    "switchable": lambda rng: fill_target(rng, rng.choice(("light", "device"))),
    "light": lambda rng: fill_target(rng, "light"),
    "lock": lambda rng: fill_target(rng, "lock"),
    "cover": lambda rng: fill_target(rng, "cover"),
    "everything": fill_everything,
    "area_light": fill_area_light,
    "area": lambda rng: fill_phrase(rng, "area", 0.06),
    "area_said": lambda rng: Filled(rng.choice(words("area"))),
    "part": lambda rng: Filled(rng.choice(words("part"))),
    "percent_said": fill_percent,
    "degrees_said": fill_degrees,
    "duration_said": fill_duration,
    "duration_one": lambda rng: fill_duration(rng, one=True),
    "clock_said": fill_clock,
    "color": lambda rng: fill_phrase(rng, "color", 0.02),
    "color_other": lambda rng: Filled(rng.choice(words("color"))),
    "item": lambda rng: fill_phrase(rng, "item", 0.3),
    "list": fill_list,
    "music_said": lambda rng: fill_phrase(rng, "music", 0.4),
    "task_said": lambda rng: fill_phrase(rng, "task", 0.25),
    "scene": lambda rng: fill_phrase(rng, "scene", 0.2),
    "is_question": lambda rng: fill_state(rng, "is"),
    "state_question": lambda rng: fill_state(rng, "clause"),
    "left_question": lambda rng: fill_state(rng, "left"),
    "which": lambda rng: fill_which(rng, "which"),
    "which_are": lambda rng: fill_which(rng, "are"),
    "which_any": lambda rng: fill_which(rng, "any"),
    "noise": fill_noise,
    "gibberish": fill_gibberish,
    "number": lambda rng: Filled(str(rng.randint(0, 999))),
}


# ---------------------------------------------------------------- wordings


def expand(template: str, rng: random.Random) -> str:
    """Resolve (a|b) and [optional] in a wording, innermost first; slots stay as they are."""
    while group := re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", template):
        if group[1] is not None:
            taken = rng.choice(group[1].split("|"))
        else:
            taken = rng.choice(group[2].split("|")) if rng.random() < 0.5 else ""
        template = template[: group.start()] + taken + template[group.end() :]
    return " ".join(template.split())


def draw_example(intent: str, wording: str, rng: random.Random) -> Example:
    """One example of an intent in one wording."""
    slots: dict[str, str] = {}
    call: dict[str, str | int] = {}

    def fill(match: re.Match[str]) -> str:
        filled = FILL[match[1]](rng)
        slots.update(filled.slots)
        call.update(filled.call)
        return filled.said

    text = re.sub(r"\{(\w+)\}", fill, expand(wording, rng))
    row = phrases()["intent"][intent]
    if row.get("polite") and rng.random() < 0.35:
        if rng.random() < 0.7:
            text = f"{rng.choice(POLITE_BEFORE)} {text}"
        if rng.random() < 0.4:
            text = f"{text} {rng.choice(POLITE_AFTER)}"
    needed = set(re.findall(r"\{(\w+)\}", row["say"]))
    return Example(text, intent, {k: v for k, v in slots.items() if k in needed}, call if needed else {})


def written(text: str, rng: random.Random) -> str:
    """The line as somebody may type it: capitals and marks at random."""
    style = rng.random()
    question = re.match(r"(what|how|is|are|who|when|where|which|why|do|does|did|will|can|could|would|should)\b", text)
    if style < 0.45:
        text = text[:1].upper() + text[1:]
        text = re.sub(r"\bi\b", "I", text)
    elif style < 0.48:
        text = text.title()
    elif style < 0.49:
        text = text.upper()
    if rng.random() < 0.45 and text[-1:].isalnum():
        text += "?" if question else rng.choice((".", ".", "!"))
    return text


# ---------------------------------------------------------------- rows of the public data sets

NLU_INTENTS = {
    "audio_volume_mute": "mute", "audio_volume_up": "volume_up", "audio_volume_down": "volume_down",
    "iot_coffee": "coffee", "iot_cleaning": "vacuum_start", "weather_query": "get_weather",
    "alarm_query": "get_alarms", "alarm_remove": "cancel_alarm", "general_joke": "joke", "general_praise": "thanks",
    "iot_hue_lighton": "turn_on", "iot_hue_lightoff": "turn_off", "iot_hue_lightup": "brighten",
    "iot_hue_lightdim": "dim", "iot_hue_lightchange": "set_color", "iot_wemo_on": "turn_on",
    "iot_wemo_off": "turn_off", "datetime_query": "get_time",
}  # fmt: skip
CLINC_INTENTS = {
    "time": "get_time", "date": "get_date", "weather": "get_weather", "greeting": "hello", "goodbye": "goodbye",
    "thank_you": "thanks", "tell_joke": "joke", "what_is_your_name": "who_are_you", "who_made_you": "who_made_you",
    "are_you_a_bot": "are_you_human", "how_old_are_you": "how_old_are_you", "what_can_i_ask_you": "what_can_you_do",
    "where_are_you_from": "who_made_you", "next_song": "media_next",
}  # fmt: skip
REFUSED_NLU = ("qa_", "email_", "social_", "transport_", "takeaway_", "recommendation_", "cooking_", "music_query")
UNCLEAR_CLINC = {
    "reminder", "reminder_update", "todo_list", "todo_list_update", "shopping_list", "shopping_list_update", "calendar",
    "calendar_update", "smart_home", "cancel", "repeat", "yes", "no", "maybe", "timer", "alarm", "change_volume",
    "play_music", "change_language", "change_speed", "whisper_mode", "reset_settings", "sync_device",
    "update_playlist", "meeting_schedule", "schedule_meeting", "next_holiday", "timezone", "change_accent",
    "change_ai_name", "change_user_name", "who_do_you_work_for", "do_you_have_pets", "what_are_your_hobbies",
}  # fmt: skip


def read_rows(name: str) -> list[tuple[str, str, dict[str, str]]]:
    """Rows of a table in data/: the source's own intent, the text in lower case, the source's own slots."""
    rows = []
    for line in (DATA / name).read_text().splitlines():
        intent, text, slots = line.split("\t")
        rows.append((intent, text.lower(), dict(slot.split("=", 1) for slot in slots.split("|") if slot)))
    return rows


def light_of(text: str, slots: dict[str, str]) -> str:
    """The light that a row of the NLU data speaks of, as the answer names it."""
    noun = "lamp" if "lamp" in text else "light" if re.search(r"\blight\b", text) else "lights"
    place = slots.get("house_place", "")
    return f"the {place} {noun}" if place and place not in ("house", "home", "room") else f"the {noun}"


def from_nlu(source: str, text: str, slots: dict[str, str]) -> Example | None:
    """A row of the NLU data as one of our examples; None where our answers have no clear place for it."""
    if source.startswith(REFUSED_NLU):
        return Example(text, "out_of_scope")
    intent = NLU_INTENTS.get(source)
    if intent is None or (source.startswith("audio") and re.search(r"\d|percent|zero|ten|fifty|\bto\b", text)):
        return None
    if source == "datetime_query":
        return Example(text, "get_date" if re.search(r"\b(day|date|month|year|week)", text) else "get_time")
    if intent == "set_color":
        color = slots.get("color_type", "")
        if color not in words("color"):
            return None
        target = light_of(text, slots)
        return Example(text, intent, {"target": target, "color": color}, {"name": bare(target), "color": color})
    if source.startswith("iot_wemo"):
        device = slots.get("device_type", "")
        if f" {device}" not in f" {text}" or not device:
            return None
        return Example(text, intent, {"target": f"the {device}"}, {"name": device})
    if source.startswith("iot_hue"):
        if re.search(r"\d|percent|\b(all|every)\b", text):
            return None
        target = light_of(text, slots)
        return Example(text, intent, {"target": target}, {"name": bare(target)})
    return Example(text, intent)


def from_clinc(source: str, text: str) -> Example | None:
    """A row of CLINC150 as one of our examples; None where our answers have no clear place for it."""
    if source == "greeting" and re.search(r"\b(how|what|whats|what's|doing|up)\b", text):
        return Example(text, "how_are_you")
    if source in CLINC_INTENTS:
        return Example(text, CLINC_INTENTS[source])
    return None if source in UNCLEAR_CLINC else Example(text, "out_of_scope")


@cache
def real_examples(part: str) -> list[Example]:
    """All usable rows of the public data sets; `part` is 'train' or 'test'."""
    nlu = [from_nlu(*row) for row in read_rows(f"nlu_{part}.tsv")]
    clinc = [from_clinc(intent, text) for intent, text, _ in read_rows(f"clinc_{part}.tsv")]
    return [example for example in nlu + clinc if example]


# ---------------------------------------------------------------- dialogues


def answer_line(example: Example) -> str:
    """The spoken answer of an example."""
    say: str = phrases()["intent"][example.intent]["say"]
    return say.format(**example.slots)


def answer_json(example: Example) -> str:
    """The JSON answer of an example: its intent and its slots."""
    return json.dumps({"intent": example.intent, **example.call})


def render(messages: list[tuple[str, str]]) -> str:
    """The chat template: 'Role: content<|eot_id|>' for each message, then 'Assistant: '."""
    turns = [f"{role.capitalize()}: {content.strip()}{END_OF_TURN}" for role, content in messages]
    return "".join(turns) + "Assistant: "


class Sampler:
    """An endless, seeded stream of training dialogues."""

    def __init__(self, seed: int) -> None:
        """Start the stream that belongs to `seed`."""
        self.rng = random.Random(seed)
        real = real_examples("train")
        self.refused = [example for example in real if example.intent == "out_of_scope"]
        self.known: dict[str, list[Example]] = {}
        for example in real:
            if example.intent != "out_of_scope":
                self.known.setdefault(example.intent, []).append(example)
        rows = phrases()["intent"]
        self.intents = list(rows)
        # An intent with slots has more to learn than a fixed answer; the state of a device has the most forms.
        self.weights = [1.0 + 1.5 * row["say"].count("{") for row in rows.values()]
        for name, weight in (("turn_on", 4.0), ("turn_off", 4.0), ("get_state", 4.0), ("not_understood", 2.0)):
            self.weights[self.intents.index(name)] = weight

    def example(self) -> Example:
        """The next example."""
        rng = self.rng
        if rng.random() < REAL_SHARE:
            if rng.random() < REFUSED_SHARE:
                return rng.choice(self.refused)
            return rng.choice(self.known[rng.choice(list(self.known))])
        intent = rng.choices(self.intents, self.weights)[0]
        return draw_example(intent, rng.choice(phrases()["intent"][intent]["wordings"]), rng)

    def dialogue(self) -> Dialogue:
        """The next dialogue, ready to be tokenized."""
        rng, example = self.rng, self.example()
        messages = [("user", written(example.text, rng))]
        if rng.random() < SECOND_TURN_SHARE:
            before = self.example()
            messages = [("user", written(before.text, rng)), ("assistant", answer_line(before)), *messages]
        chance, answer = rng.random(), answer_line(example)
        if chance < JSON_SHARE:
            messages.insert(0, ("system", rng.choice(JSON_SYSTEM)))
            answer = answer_json(example)
        elif chance < JSON_SHARE + SYSTEM_SHARE:
            messages.insert(0, ("system", rng.choice(PLAIN_SYSTEM)))
        return Dialogue(render(messages), answer)

    def __iter__(self) -> Iterator[Dialogue]:
        """Dialogues without an end."""
        while True:
            yield self.dialogue()


# ---------------------------------------------------------------- test sets


def held_out_examples(seed: int, each: int = 4) -> list[Example]:
    """Examples in wordings that training never sees, `each` for every such wording."""
    rng = random.Random(seed)
    rows = phrases()["intent"]
    return [
        draw_example(intent, wording, rng)
        for intent, row in rows.items()
        for wording in row["held_out"]
        for _ in range(each)
    ]


def seen_wording_examples(seed: int, count: int) -> list[Example]:
    """Fresh draws in wordings that training uses: new names and numbers in known sentences."""
    rng = random.Random(seed)
    rows = phrases()["intent"]
    drawn = []
    for _ in range(count):
        intent = rng.choice(list(rows))
        drawn.append(draw_example(intent, rng.choice(rows[intent]["wordings"]), rng))
    return drawn


HOME_ASSISTANT_INTENTS = {
    "HassLightSet": {"set_brightness", "set_color", "dim", "brighten"}, "HassStartTimer": {"start_timer"},
    "HassGetState": {"get_state", "which_state"}, "HassDecreaseTimer": {"reduce_timer"},
    "HassIncreaseTimer": {"add_timer"}, "HassTimerStatus": {"timer_status"}, "HassPauseTimer": {"pause_timer"},
    "HassUnpauseTimer": {"resume_timer"}, "HassCancelTimer": {"cancel_timer"}, "HassCancelAllTimers": {"cancel_timer"},
    "HassMediaNext": {"media_next"}, "HassMediaPrevious": {"media_previous"}, "HassMediaPause": {"media_pause"},
    "HassMediaUnpause": {"media_resume"}, "HassSetVolume": {"set_volume"}, "HassGetWeather": {"get_weather"},
    "HassClimateGetTemperature": {"get_temperature", "get_room_temperature"}, "HassGetCurrentTime": {"get_time"},
    "HassClimateSetTemperature": {"set_temperature", "set_room_temperature"}, "HassGetCurrentDate": {"get_date"},
    "HassSetPosition": {"set_position"}, "HassMediaSearchAndPlay": {"play"}, "HassVacuumStart": {"vacuum_start"},
    "HassVacuumReturnToBase": {"vacuum_dock"}, "HassListAddItem": {"list_add"}, "HassShoppingListAddItem": {"list_add"},
    "HassListCompleteItem": {"list_remove"}, "HassShoppingListCompleteItem": {"list_remove"},
}  # fmt: skip


def home_assistant_intents(source: str, slots: dict[str, str]) -> set[str]:
    """Our intents that answer a Home Assistant intent rightly; empty where we have none."""
    domain = slots.get("domain", "")
    if source in ("HassTurnOn", "HassTurnOff"):
        on = source == "HassTurnOn"
        by_domain = {
            "lock": {"lock"} if on else {"unlock"},
            "cover": {"open"} if on else {"close"},
            "scene": {"scene", "turn_on"},
            "script": {"scene", "turn_on"},
        }
        return by_domain.get(domain, {"turn_on", "open"} if on else {"turn_off", "close"})
    return HOME_ASSISTANT_INTENTS.get(source, set())


def home_assistant_examples() -> list[tuple[str, set[str]]]:
    """Home Assistant's own test sentences, never trained on, with the intents that count as right."""
    rows = [
        (text, home_assistant_intents(intent, slots)) for intent, text, slots in read_rows("home_assistant_test.tsv")
    ]
    return [(text, wanted) for text, wanted in rows if wanted]


@cache
def say_patterns() -> list[tuple[str, re.Pattern[str]]]:
    """For each intent the pattern its spoken answer has."""
    rows = phrases()["intent"].items()
    return [(name, re.compile(re.sub(r"\\\{\w+\\\}", "(.+)", re.escape(row["say"])))) for name, row in rows]


def intents_said(answer: str) -> set[str]:
    """The intents whose spoken answer this line can be."""
    return {name for name, pattern in say_patterns() if pattern.fullmatch(answer)}
