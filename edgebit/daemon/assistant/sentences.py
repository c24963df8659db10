"""The device's own figures in plain sentences, by the intent of the question; what is not known is said, and why.

An intent is a row of TOPICS: the figures that it is about, and the sentence that tells them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgebit.daemon.assistant.own_facts import OwnFacts
from edgebit.daemon.sensors.reading import Reading

_LABEL = re.compile(r"\(([^()]+)\)$")
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_HELD_BACK = {
    "undervoltage": "its supply voltage is too low",
    "freq_capped": "its clock is capped",
    "throttled": "it is throttled",
    "soft_temp_limit": "it is at its soft temperature limit",
}
_WAS_HELD_BACK = {
    "undervoltage": "its supply voltage was too low",
    "freq_capped": "its clock was capped",
    "throttled": "it was throttled",
    "soft_temp_limit": "it was at its soft temperature limit",
}


@dataclass(frozen=True, slots=True)
class Topic:
    """What a question of one intent is answered with."""

    figures: tuple[str, ...]
    sentence: Callable[[OwnFacts], str]


def duration(seconds: float) -> str:
    """A time in the two largest of its units: "3 days and 4 hours"."""
    left, parts = int(seconds), []
    for name, size in _UNITS:
        number, left = divmod(left, size)
        if number:
            parts.append(_count(number, name))
    return " and ".join(parts[:2]) or "less than a second"


def mebibytes(value: float) -> str:
    """A size that is given in MiB, in GiB from one on."""
    return f"{value / 1024:.1f} GiB" if value >= 1024 else f"{value:.0f} MiB"


def _temperature(facts: OwnFacts) -> str:
    chip, battery = facts.figure("t_soc"), facts.figure("t_battery")
    words = _or_absent(chip, "The temperature of the chip", lambda value: f"The chip is at {value:.1f} °C{_by(chip)}.")
    return words if battery.value is None else f"{words} The battery is at {battery.value:.1f} °C."


def _throttling(facts: OwnFacts) -> str:
    now = {name: facts.figure(name) for name in _HELD_BACK}
    if all(reading.value is None for reading in now.values()):
        return f"Whether the device is throttled cannot be measured here: {now['throttled'].absent}."
    held = [words for name, words in _HELD_BACK.items() if now[name].value]
    was = [
        words for name, words in _WAS_HELD_BACK.items() if facts.figure(f"{name}_seen").value and not now[name].value
    ]
    first = f"The device is held back now: {_listed(held)}." if held else "Nothing holds the device back now."
    if was:
        return f"{first} Since I was started {_listed(was)}{'' if held else ' at times'}."
    return first if held else f"{first} Nothing has since I was started."


def _load(facts: OwnFacts) -> str:
    load = facts.figure("load_1m")
    words = _or_absent(load, "The load", lambda value: f"The load is {value:.2f} over the last minute.")
    running, queued = (int(facts.figure(name).value or 0) for name in ("running", "queued"))
    if not running and not queued:
        return f"{words} I have nothing else to answer."
    waiting = f"{_count(queued, 'request')} {'is' if queued == 1 else 'are'} waiting"
    return f"{words} I am computing {_count(running, 'other answer')}, and {waiting}."


def _memory(facts: OwnFacts) -> str:
    total, free = facts.figure("mem_total"), facts.figure("mem_available")
    if not total.value:
        return _cannot("The memory", total)

    def words(value: float) -> str:
        return f"{mebibytes(value)} of {mebibytes(total.value or 0)} of memory are available."

    return _or_absent(free, "How much memory is available", words)


def _disk(facts: OwnFacts) -> str:
    return _or_absent(
        facts.figure("disk_free"),
        "The room on the disk",
        lambda value: f"{mebibytes(value)} are free on the disk that I write to.",
    )


def _power(facts: OwnFacts) -> str:
    power, energy, battery = (facts.figure(name) for name in ("power", "energy_total", "battery"))
    parts = [_or_absent(power, "The power", lambda value: f"The device draws {value:.2f} W{_by(power)}.")]
    if power.value is not None and energy.value is not None:
        parts.append(f"Since I was started it has taken {energy.value / 3600:.2f} watt-hours.")
    if battery.value is not None:
        charging = facts.figure("charging").value
        how = "" if charging is None else " and is being charged" if charging else " and is not being charged"
        parts.append(f"The battery is at {battery.value:.0f} percent{how}.")
    return " ".join(parts)


def _uptime(facts: OwnFacts) -> str:
    device, daemon = facts.figure("uptime"), facts.figure("daemon_uptime")
    words = _or_absent(device, "How long the device is up", lambda value: f"The device is up for {duration(value)}.")
    return words if daemon.value is None else f"{words} I was started {duration(daemon.value)} ago."


def _speed(facts: OwnFacts) -> str:
    this, lately = facts.figure("answer_tok_s").value, facts.figure("tok_s").value
    if this is None and lately is None:
        return "I have not computed an answer yet whose speed could be measured."
    parts = [] if this is None else [f"I have computed this answer at {this:.0f} tokens a second."]
    if lately is not None:
        parts.append(f"Over the last five minutes it was {lately:.0f} tokens a second.")
    return " ".join(parts)


def _network(facts: OwnFacts) -> str:
    if not facts.connected:
        return f"The connection to the broker at {facts.broker} is lost just now; I am trying to connect again."
    how = "with" if facts.encrypted else "without"
    return f"I am connected to the broker at {facts.broker} over MQTT {facts.protocol}, {how} encryption."


def _model(facts: OwnFacts) -> str:
    model, engine = facts.described.get("model") or {}, facts.described.get("engine") or {}
    name, parameters = model.get("name"), model.get("parameters")
    if not name:
        return "No model is loaded yet."
    size = f", of {parameters / 1e6:.1f} million parameters" if isinstance(parameters, int) and parameters else ""
    threads = engine.get("threads")
    with_what = f" It runs on {_count(threads, 'thread')} of the engine {engine.get('name')}." if threads else ""
    return f"The model {name} answers you{size}.{with_what}"


def _or_absent(reading: Reading, subject: str, words: Callable[[float], str]) -> str:
    return _cannot(subject, reading) if reading.value is None else words(reading.value)


def _cannot(subject: str, reading: Reading) -> str:
    return f"{subject} cannot be measured here: {reading.absent}."


def _by(reading: Reading) -> str:
    """The source, as short as it can be said; what is only estimated is said to be."""
    label = _LABEL.search(reading.source)
    short = label.group(1) if label else reading.source
    return f", by {short}" + ("" if reading.measured else ", an estimate")


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


TOPICS: Mapping[str, Topic] = MappingProxyType(
    {
        "device_temperature": Topic(("t_soc", "t_battery"), _temperature),
        "device_throttling": Topic((*_HELD_BACK, *(f"{name}_seen" for name in _HELD_BACK)), _throttling),
        "device_load": Topic(("load_1m", "load_5m", "running", "queued"), _load),
        "device_memory": Topic(("mem_total", "mem_available"), _memory),
        "device_disk": Topic(("disk_free",), _disk),
        "device_power": Topic(("power", "energy_total", "battery", "charging", "mains"), _power),
        "device_uptime": Topic(("uptime", "daemon_uptime"), _uptime),
        "device_speed": Topic(("answer_tok_s", "tok_s"), _speed),
        "device_network": Topic((), _network),
        "device_model": Topic((), _model),
    }
)
