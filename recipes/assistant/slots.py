"""Fills the slots of wordings: what the user says, and what the call carries."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from recipes.assistant.intents import Call
from recipes.assistant.values import clock, degrees, duration, number, over_percent, percent
from recipes.assistant.words import device_names, free_word, hash_of, lines, plural, words

NAMES_HELD_OUT = 10  # one in so many device names is kept for the tests


@dataclass(frozen=True, slots=True)
class Filled:
    """A slot with a value: the words the user says, the fields of the call, and whether a name is in the plural."""

    said: str
    call: Call = field(default_factory=dict)
    many: bool = False


# Where the names of people's own devices come from, by slot.
OWN_NAMES = {"light": ("light",), "device": ("switch", "media_player", "climate"), "fan": ("fan",), "lock": ("lock",),
             "cover": ("blinds", "garage_door")}  # fmt: skip


def is_held_out_name(name: str) -> bool:
    """Whether a device's name is kept out of training."""
    return hash_of(name) % NAMES_HELD_OUT == 0


def free_name(rng: random.Random, most: int) -> str:
    """One to `most` words at random."""
    return " ".join(free_word(rng) for _ in range(rng.randint(1, most)))


def draw_area(rng: random.Random) -> str:
    """The name of a room, without its article."""
    chance = rng.random()
    if chance < 0.08:
        return f"{free_word(rng)} room"
    if chance < 0.12:
        return free_word(rng)
    if chance < 0.16:
        return f"{rng.choice(words('adjective'))} {rng.choice(words('area'))}"
    return rng.choice(words("area"))


def draw_name(rng: random.Random, kind: str) -> Filled:
    """A device: 'the lights in the kitchen' is called 'kitchen lights', as the kitchen lights are."""
    the = rng.choice(("the ", "the ", "the ", "", "my ", "our ") if rng.random() < 0.3 else ("the ", "the ", ""))
    form = rng.random()
    if form < 0.10:
        name = rng.choice(device_names()[rng.choice(OWN_NAMES[kind])])
        return Filled(the + name, {"name": name}, name.endswith("s"))
    if form < 0.18 and kind in ("light", "device"):
        name = free_name(rng, 1) + " " + free_name(rng, 2)
        return Filled("the " + name, {"name": name}, False)
    noun = rng.choice(words(kind))
    if kind == "light" and rng.random() < 0.5:
        noun = rng.choice(("light", "light", "lamp"))
    many = rng.random() < (0.5 if kind in ("light", "cover") else 0.15)
    noun = plural(noun) if many else noun
    area = draw_area(rng)
    if form < 0.42:
        return Filled(f"{the}{area} {noun}", {"name": f"{area} {noun}"}, many)
    if form < 0.60:
        inside = rng.choice(("in", "in", "in", "of", "at"))
        return Filled(f"{the}{noun} {inside} the {area}", {"name": f"{area} {noun}"}, many)
    if form < 0.74:
        return Filled(the + noun, {"name": noun}, many)
    if form < 0.86:
        first = rng.choice(words("adjective")) if rng.random() < 0.4 else free_word(rng)
        name = f"{first} {area} {noun}" if rng.random() < 0.4 else f"{first} {noun}"
        return Filled(the + name, {"name": name}, many)
    if form < 0.90:
        level = rng.choice(words("level"))
        said = f"{noun} {level}" if level in ("upstairs", "downstairs", "outside") else f"{level} {noun}"
        return Filled(the + said, {"name": f"{level} {noun}"}, many)
    if form < 0.93 and not many:
        count = rng.randint(1, 12)
        return Filled(f"{the}{noun} {number(rng, count)}", {"name": f"{noun} {count}"}, False)
    nouns = noun if many else plural(noun)
    every = rng.choice(("all the", "all", "all of the"))
    if rng.random() < 0.5:
        return Filled(f"{every} {nouns}", {"name": f"all {nouns}"}, True)
    said = rng.choice((f"{every} {area} {nouns}", f"{every} {nouns} in the {area}"))
    return Filled(said, {"name": f"all {area} {nouns}"}, True)


def fill_name(kind: str) -> Callable[[random.Random, bool], Filled]:
    """A filler that draws a device's name; `held_out` says which half of the names."""

    def fill(rng: random.Random, held_out: bool) -> Filled:
        while True:
            chosen = rng.choice(("light", "device")) if kind == "switch" else kind
            chosen = rng.choice(("light", "device", "lock", "cover", "fan")) if kind == "thing" else chosen
            filled = draw_name(rng, chosen)
            if is_held_out_name(str(filled.call["name"])) == held_out:
                return filled

    return fill


def fill_everything(rng: random.Random) -> Filled:
    """All devices of the house or of a room."""
    said = rng.choice(("everything", "all devices", "everything"))
    place = f" in the {draw_area(rng)}" if rng.random() < 0.6 else ""
    return Filled(said + place, {"name": said + place})


def fill_group(rng: random.Random, kind: str) -> Filled:
    """A kind of device in the plural, at times of one room: 'windows in the kitchen' is 'kitchen windows'."""
    nouns, area = rng.choice(words(kind)), draw_area(rng)
    form = rng.random()
    if form < 0.25:
        return Filled(f"{nouns} in the {area}", {"name": f"{area} {nouns}"}, True)
    if form < 0.4:
        return Filled(f"{area} {nouns}", {"name": f"{area} {nouns}"}, True)
    return Filled(nouns, {"name": nouns}, True)


def fill_area(rng: random.Random) -> Filled:
    """A room, mostly with its article."""
    area = draw_area(rng)
    return Filled(rng.choice(("the ", "the ", "the ", "the ", "my ", "")) + area, {"area": area})


def fill_list(rng: random.Random) -> Filled:
    """The name of a list."""
    name = rng.choice(words("list"))
    return Filled(*named("list", f"{free_word(rng)} list" if rng.random() < 0.15 else name))


def named(slot: str, value: str | int) -> tuple[str, Call]:
    """A value that is called as it is said."""
    return str(value), {slot: value}


def fill_item(rng: random.Random) -> Filled:
    """A thing to buy or to do."""
    chance = rng.random()
    if chance < 0.2:
        return Filled(*named("item", free_name(rng, 3)))
    if chance < 0.35:
        return Filled(*named("item", rng.choice(lines("todo_items.txt"))))
    return Filled(*named("item", rng.choice(words("item"))))


def fill_media(rng: random.Random) -> Filled:
    """Something to play."""
    chance = rng.random()
    if chance < 0.2:
        return Filled(*named("media", free_name(rng, 3)))
    if chance < 0.3:
        return Filled(
            *named("media", f"{rng.choice(lines('media.txt'))} by {rng.choice(lines('media.txt'))}"[:60].strip())
        )
    return Filled(*named("media", rng.choice(lines("media.txt") if chance < 0.6 else words("music"))))


def fill_from(slot: str, kind: str, free_share: float) -> Callable[[random.Random], Filled]:
    """A filler that takes a word of a list, or at times any words."""

    def fill(rng: random.Random) -> Filled:
        value = free_name(rng, 2) if rng.random() < free_share else rng.choice(words(kind))
        return Filled(*named(slot, value))

    return fill


def fill_state(said: dict[str, str]) -> Callable[[random.Random], Filled]:
    """A filler that draws a state, as said and as called."""

    def fill(rng: random.Random) -> Filled:
        word = rng.choice(list(said))
        return Filled(word, {"state": said[word]})

    return fill


def with_value(slot: str, draw: Callable[[random.Random], tuple[str, str | int]]) -> Callable[[random.Random], Filled]:
    """A filler of a value that is called otherwise than it is said."""

    def fill(rng: random.Random) -> Filled:
        said, value = draw(rng)
        return Filled(said, {slot: value})

    return fill


def said_only(draw: Callable[[random.Random], str]) -> Callable[[random.Random], Filled]:
    """A filler of words that no call carries."""
    return lambda rng: Filled(draw(rng))


def gibberish(rng: random.Random) -> str:
    """Letters without a meaning."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 9)))


ON_OFF = {"on": "on", "off": "off", "turned on": "on", "turned off": "off", "switched on": "on",
          "switched off": "off", "running": "on"}  # fmt: skip

# Fillers of names take whether a held-out name is wanted.
NAME_FILLERS = {kind: fill_name(kind) for kind in ("switch", "light", "device", "lock", "cover", "fan", "thing")}
FILLERS: dict[str, Callable[[random.Random], Filled]] = {
    "everything": fill_everything,
    "switches": lambda rng: fill_group(rng, "switches"),
    "covers": lambda rng: fill_group(rng, "covers"),
    "locks": lambda rng: fill_group(rng, "locks"),
    "area": fill_area,
    "area_said": said_only(lambda rng: f"the {draw_area(rng)}"),
    "part": said_only(lambda rng: rng.choice(words("part"))),
    "percent": with_value("percent", percent),
    "over": said_only(over_percent),
    "degrees": with_value("degrees", degrees),
    "duration": with_value("duration", duration),
    "duration_adj": with_value("duration", lambda rng: duration(rng, before_noun=True)),
    "time": with_value("time", clock),
    "color": fill_from("color", "color", 0.03),
    "color_other": said_only(lambda rng: rng.choice(words("color"))),
    "item": fill_item,
    "list": fill_list,
    "media": fill_media,
    "scene": fill_from("scene", "scene", 0.3),
    "on_off": fill_state(ON_OFF),
    "open_closed": fill_state({"open": "open", "closed": "closed", "shut": "closed", "wide open": "open"}),
    "locked": fill_state({"locked": "locked", "unlocked": "unlocked"}),
    "noise": said_only(lambda rng: free_name(rng, 3)),
    "gibberish": said_only(gibberish),
    "number": said_only(lambda rng: str(rng.randint(0, 999))),
}


def fill(slot: str, rng: random.Random, held_out_name: bool) -> Filled:
    """A value for a slot of a wording."""
    if slot in NAME_FILLERS:
        return NAME_FILLERS[slot](rng, held_out_name)
    return FILLERS[slot](rng)
