"""What a device says of itself: its figures as they are, and what it does not know as not known."""

import dataclasses
from pathlib import Path

import pytest
from mqtt_fixtures import TESTS

from edgebit.daemon.assistant.own_facts import OwnFacts, own_figure
from edgebit.daemon.assistant.sentences import TOPICS, duration, mebibytes
from edgebit.daemon.config.sections import PowerConfig, SensorsConfig
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.kinds import sampler_of
from edgebit.daemon.sensors.reading import Reading

NOBODY = OwnFacts(
    figures={}, connected=True, broker="broker.local, port 1883", protocol="5", encrypted=False, described={}
)


def knowing(*figures, **named):
    return dataclasses.replace(NOBODY, figures={reading.name: reading for reading in figures}, **named)


def own(name, value, unit="1"):
    return own_figure(name, unit, value)


def said(intent, facts):
    return TOPICS[intent].sentence(facts)


@pytest.fixture(scope="module")
def pi5(tmp_path_factory):
    """The sensors of a made-up Raspberry Pi 5."""
    files = DeviceFiles(Path(TESTS / "daemon" / "roots" / "pi5"))
    sampler = sampler_of(files, SensorsConfig(), PowerConfig(), tmp_path_factory.mktemp("state"))
    sampler.sample()
    return knowing(*sampler.readings().values())


def test_a_pi_tells_its_own_files(pi5):
    """Each figure is the one that lies in the device's files, with the name of its sensor."""
    root = TESTS / "daemon" / "roots" / "pi5"
    millis = int((root / "sys/class/thermal/thermal_zone0/temp").read_text())
    assert said("device_temperature", pi5) == f"The chip is at {millis / 1000:.1f} °C, by cpu-thermal."
    load = float((root / "proc/loadavg").read_text().split()[0])
    assert f"The load is {load:.2f} over the last minute." in said("device_load", pi5)
    kib = {line.split(":")[0]: int(line.split()[1]) for line in (root / "proc/meminfo").read_text().splitlines()}
    free, total = mebibytes(kib["MemAvailable"] / 1024), mebibytes(kib["MemTotal"] / 1024)
    assert said("device_memory", pi5) == f"{free} of {total} of memory are available."
    up = duration(float((root / "proc/uptime").read_text().split()[0]))
    assert said("device_uptime", pi5) == f"The device is up for {up}."
    assert "free on the disk" in said("device_disk", pi5)


@pytest.mark.parametrize("intent", sorted(TOPICS.keys() - {"device_network", "device_model", "device_load"}))
def test_what_is_not_known_is_no_figure(intent):
    """A device without sensors says so, with the reason, and no digit."""
    told = said(intent, NOBODY)
    assert not any(character.isdigit() for character in told)
    assert "there is no such figure here" in told or intent == "device_speed"


def test_why_a_sensor_is_absent_is_said():
    """In the reading's own words."""
    facts = knowing(Reading("t_soc", "C", None, "/sys", absent="no thermal zone of a processor (there are: none)"))
    assert said("device_temperature", facts) == (
        "The temperature of the chip cannot be measured here: no thermal zone of a processor (there are: none)."
    )


@pytest.mark.parametrize(
    ("now", "seen", "told"),
    [
        ({}, {}, "Nothing holds the device back now. Nothing has since I was started."),
        ({"throttled": 1}, {"throttled": 1}, "The device is held back now: it is throttled."),
        (
            {"throttled": 1, "undervoltage": 1},
            {"throttled": 1, "undervoltage": 1, "freq_capped": 1},
            "The device is held back now: its supply voltage is too low and it is throttled."
            " Since I was started its clock was capped.",
        ),
        (
            {},
            {"undervoltage": 1},
            "Nothing holds the device back now. Since I was started its supply voltage was too low at times.",
        ),
    ],
)
def test_throttling_now_and_before(now, seen, told):
    """What is, and what was since the start, apart."""
    names = ("undervoltage", "freq_capped", "throttled", "soft_temp_limit")
    figures = [own(name, float(now.get(name, 0))) for name in names]
    figures += [own(f"{name}_seen", float(seen.get(name, 0))) for name in names]
    assert said("device_throttling", knowing(*figures)) == told


def test_power_and_battery():
    """An estimate is called one; energy is in watt-hours; the battery says whether it is charged."""
    power = Reading("power", "W", 3.217, "pmic_sum_fit (raspberry pi 5)", measured=False)
    facts = knowing(power, own("energy_total", 7200.0), own("battery", 81.0), own("charging", 0.0))
    assert said("device_power", facts) == (
        "The device draws 3.22 W, by raspberry pi 5, an estimate. Since I was started it has taken 2.00 watt-hours."
        " The battery is at 81 percent and is not being charged."
    )


def test_load_counts_what_waits():
    """Answers in the making and requests that wait, beside the system's own load."""
    facts = knowing(own("load_1m", 0.5), own("running", 1.0), own("queued", 2.0))
    assert said("device_load", facts) == (
        "The load is 0.50 over the last minute. I am computing 1 other answer, and 2 requests are waiting."
    )
    assert said("device_load", knowing(own("load_1m", 0.5))).endswith("I have nothing else to answer.")


def test_speed():
    """Of this answer, and of those before."""
    facts = knowing(own("answer_tok_s", 312.4), own("tok_s", 298.9))
    assert said("device_speed", facts) == (
        "I have computed this answer at 312 tokens a second. Over the last five minutes it was 299 tokens a second."
    )


def test_network_and_model():
    """The broker by name; a lost connection is said; the model by its own name and size."""
    assert said("device_network", NOBODY) == (
        "I am connected to the broker at broker.local, port 1883 over MQTT 5, without encryption."
    )
    assert "is lost just now" in said("device_network", dataclasses.replace(NOBODY, connected=False))
    described = {"model": {"name": "assistant", "parameters": 2_640_000}, "engine": {"name": "native", "threads": 1}}
    assert said("device_model", knowing(described=described)) == (
        "The model assistant answers you, of 2.6 million parameters. It runs on 1 thread of the engine native."
    )
    assert said("device_model", NOBODY) == "No model is loaded yet."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "less than a second"),
        (1, "1 second"),
        (61, "1 minute and 1 second"),
        (3600, "1 hour"),
        (7265, "2 hours and 1 minute"),
        (86400, "1 day"),
        (86400 * 3 + 60, "3 days and 1 minute"),
    ],
)
def test_durations(seconds, words):
    """In the two largest units that are not nothing."""
    assert duration(seconds) == words
