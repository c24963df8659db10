"""Each way in which a device can be wrong has its state and its mend, and what is right has none."""

import dataclasses
import random
import subprocess
from typing import Any

import pytest

from edgebit import device_probe
from edgebit.device_probe import DeviceState, Python
from edgebit.doctor import device, facts
from edgebit.doctor.device import check_device, judge_clock, judge_daemon, judge_device
from edgebit.doctor.facts import Facts, Zone, parse_facts
from edgebit.doctor.finding import Finding
from edgebit.errors import TransportError
from edgebit.transport import Completed, Options

GIB = 1 << 30
SOUND = DeviceState(
    root=".local/share/edgebit", arch="aarch64", machine="aarch64", kernel="Linux 6.6", host="pi", uid=1000,
    page_bytes=16384, memory_bytes=4 * GIB, available_bytes=3 * GIB, free_bytes=20 * GIB, init="systemd",
    python=Python((3, 11, 2), "/usr/bin/python3", ()), has_root=True, configured=True, pyz="x/edgebitd.pyz",
    active="a", slots={"a": {"id": "0123", "status": "good"}}, refused={}, stored={"f" * 64: 1000},
)  # fmt: skip
WELL = Facts(
    now=1000, model="Raspberry Pi 5 Model B Rev 1.0", features=frozenset({"asimd", "asimddp"}), governor="ondemand",
    zones=(Zone("cpu-thermal", 55.0, None),), cooling=False, throttled=0, linger=True, synchronised=True,
    enabled="enabled",
)  # fmt: skip
STATUS: dict[str, Any] = {
    "slots": {"a": {"id": "0123", "name": "chat", "status": "good"}}, "active": "a", "refused": {}, "up": True,
    "pid": 77, "service": "systemd-user", "broker": "mqtt://broker.local",
}  # fmt: skip


def named(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_sound_device_has_no_complaint():
    """Not one mend."""
    findings = [*judge_device(SOUND, WELL), judge_clock(WELL, 999.5, 1000.5), *judge_daemon(STATUS, SOUND, WELL, "u")]

    assert {(finding.name, finding.state) for finding in findings if finding.state != "ok" or finding.mend} == set()
    assert named(findings)["ISA level"].detail == "dotprod"


DEVICE_FAULTS: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
    # name of the finding, state, words in it, what differs in the probe, what differs in the facts
    ("architecture", "fail", "32-bit system on a 64-bit CPU", {"arch": "armv7l"}, {}),
    ("architecture", "fail", "riscv64", {"arch": "riscv64", "machine": "riscv64"}, {}),
    ("ISA level", "unknown", "no features", {}, {"features": frozenset()}),
    ("ISA level", "warn", "scalar", {}, {"features": frozenset({"fp"})}),
    ("ISA level", "warn", "scalar", {}, {"isa": "scalar (of: scalar neon)"}),
    ("ISA level", "ok", "i8mm", {}, {"isa": "i8mm (of: scalar neon dotprod i8mm)", "features": frozenset()}),
    ("Python", "warn", "edgebit-run alone", {"python": None}, {}),
    ("Python", "fail", "needs 3.11", {"python": Python((3, 9, 2), "p", ())}, {}),
    ("Python", "fail", "lacks ssl", {"python": Python((3, 13, 0), "p", ("ssl",))}, {}),
    ("onnxruntime (an option)", "ok", "1.22.0", {}, {"onnxruntime": "1.22.0"}),
    ("onnxruntime (an option)", "ok", "not installed", {}, {}),
    ("memory", "warn", "100 MiB of 4,096 MiB", {"available_bytes": 100 << 20}, {}),
    ("memory", "unknown", "meminfo", {"memory_bytes": 0}, {}),
    ("swap", "warn", "900 MiB of 1,024 MiB used", {}, {"swap_bytes": GIB, "swap_used_bytes": 900 << 20}),
    ("swap", "ok", "100 MiB", {}, {"swap_bytes": GIB, "swap_used_bytes": 100 << 20}),
    ("disk", "fail", "10 MiB free", {"free_bytes": 10 << 20}, {}),
    ("disk", "warn", "100 MiB free", {"free_bytes": 100 << 20}, {}),
    ("folder", "fail", "noexec", {"noexec": True}, {}),
    ("folder", "fail", "photos", {"strange": ("photos",)}, {}),
    ("page size", "fail", "128 KB", {"page_bytes": 131072}, {}),
    ("page size", "unknown", "nothing", {"page_bytes": 0}, {}),
    ("service manager", "warn", "not after a reboot", {"init": ""}, {}),
    ("service manager", "warn", "not after a reboot", {"init": ""}, {"libc": "Android 15"}),
    ("service manager", "warn", "last logout", {}, {"linger": False}),
    ("service manager", "ok", "as root", {"uid": 0}, {"linger": False}),
    ("clock governor", "warn", "lowest clock", {}, {"governor": "powersave"}),
    ("clock governor", "ok", "powersave", {"arch": "x86_64"}, {"governor": "powersave"}),
    ("temperature", "warn", "78 °C", {}, {"zones": (Zone("cpu-thermal", 78.0, None),)}),
    ("temperature", "warn", "85 °C", {}, {"zones": (Zone("a", 60.0, None), Zone("soc", 85.0, 85.0))}),
    ("temperature", "ok", "85 °C", {}, {"zones": (Zone("soc", 85.0, 99.0),)}),
    ("temperature", "unknown", "no thermal zone", {}, {"zones": (Zone("broken", -273.0, None),)}),
    ("throttling now", "fail", "under-voltage", {}, {"throttled": 0x50001}),
    ("throttling now", "warn", "throttled", {}, {"throttled": 0x4}),
    ("throttling now", "ok", "none", {}, {"throttled": 0x50000}),  # the sticky bits say nothing of now
    ("throttling since boot", "warn", "under-voltage, throttled", {}, {"throttled": 0x50000}),
    ("throttling since boot", "warn", "soft temperature limit", {}, {"throttled": 0x80000}),
    ("throttling", "unknown", "no vcgencmd", {}, {"throttled": None}),
    ("throttling", "unknown", "VCHI", {}, {"throttled": None, "throttled_why": "VCHI initialization failed"}),
    ("kernel's cooling", "warn", "slows the cores now", {}, {"cooling": True}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "state", "words", "probed", "told"),
    DEVICE_FAULTS,
    ids=[f"{name}, {words}, {state}" for name, state, words, _, _ in DEVICE_FAULTS],
)
def test_what_is_wrong_with_a_device_is_found(name, state, words, probed, told):
    """By the right name, no worse and no better than it is; a failure has its mend."""
    findings = named(judge_device(dataclasses.replace(SOUND, **probed), dataclasses.replace(WELL, **told)))

    found = findings[name]
    assert (found.state, words in found.detail) == (state, True), found
    assert found.mend or state not in ("fail", "warn") or "scalar" in words


def test_a_board_that_is_no_pi_has_no_firmware_to_ask():
    """Not a word of vcgencmd then."""
    other = dataclasses.replace(WELL, model="Radxa ROCK 5B", throttled=None)

    assert not [finding for finding in judge_device(SOUND, other) if finding.name.startswith("throttling")]


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (1000, "ok"),
        (1020, "ok"),
        (1100, "warn"),
        (900, "warn"),
        (1000 + 90_000, "fail"),
        (0, "warn"),
        (None, "unknown"),
    ],
)
def test_a_clock_that_is_off(now, state):
    """Half a minute is fine, a day makes certificates invalid."""
    assert judge_clock(dataclasses.replace(WELL, now=now), 999.0, 1001.0).state == state


def test_a_slow_way_does_not_make_a_clock_wrong():
    """Over a serial line the question takes a minute: then a minute is not known better."""
    assert judge_clock(dataclasses.replace(WELL, now=1050), 970.0, 1030.0).state == "ok"
    assert judge_clock(dataclasses.replace(WELL, synchronised=False), 999.5, 1000.5).state == "warn"


DAEMON_FAULTS: list[tuple[str, str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # name, state, words, what differs in the status, in the probe, in the facts
    ("installed", "fail", "no bundle", {"active": None}, {}, {}),
    ("installed", "warn", "trying", {"slots": {"a": {"id": "1", "name": "n", "status": "trying"}}}, {}, {}),
    ("running", "fail", "does not run", {"up": False}, {}, {}),
    ("running", "ok", "starting again", {"pid": None}, {}, {}),
    ("power meter", "ok", "/dev/ttyUSB0", {"meter": {"port": "/dev/ttyUSB0", "fault": ""}}, {}, {}),
    ("power meter", "fail", "no /x", {"meter": {"port": "/x", "fault": "there is no /x"}}, {}, {}),
    ("settings", "fail", "unknown key", {"config_error": "unknown key 'x'"}, {}, {}),
    ("starts at boot", "warn", "disabled", {}, {}, {"enabled": "disabled"}),
    ("starts at boot", "warn", "not after a reboot", {"service": "supervisor"}, {}, {"enabled": ""}),
    ("starts at boot", "unknown", "by the app Termux:Boot", {"service": "termux"}, {}, {"enabled": ""}),
    ("refused bundle", "warn", "abc: too slow", {"refused": {"abc": "too slow"}}, {}, {}),
    ("unfinished copies", "warn", "1 with 5 MiB", {}, {"stored": {"f" * 64 + ".part": 5 << 20}}, {}),
    ("log", "warn", "20 MiB", {}, {}, {"log_bytes": 20 << 20}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "state", "words", "said", "probed", "told"),
    DAEMON_FAULTS,
    ids=[f"{name}, {words}" for name, _, words, *_ in DAEMON_FAULTS],
)
def test_what_is_wrong_with_the_daemon_is_found(name, state, words, said, probed, told):
    """From what its own agent says."""
    findings = judge_daemon(
        {**STATUS, **said}, dataclasses.replace(SOUND, **probed), dataclasses.replace(WELL, **told), "ssh://pi"
    )

    found = named(findings)[name]
    assert (found.state, words in found.detail) == (state, True), found
    assert found.mend or state == "ok"


def test_an_agent_of_another_version_is_no_fault():
    """What it does not say is not there."""
    assert named(judge_daemon({}, SOUND, WELL, "u"))["installed"].state == "fail"


# ---- asking ----


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox"])
def test_the_questions_run_in_each_shell(require_tool, tmp_path, shell):
    """On this machine: they end well, say nothing on standard error, and give a clock."""
    argv = [require_tool(shell), *(["sh"] if shell == "busybox" else [])]
    done = subprocess.run(
        [*argv, "-c", facts._SCRIPT, "sh", str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )

    told = parse_facts(done.stdout)
    assert done.stdout.endswith("end 1\n")
    assert told.now is not None and told.now > 1_700_000_000
    assert told.features
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_read_from_its_words():
    """As a Raspberry Pi says them."""
    told = parse_facts(
        "now 1790000000\nmodel Raspberry Pi 4 Model B Rev 1.4\nlibc ldd (Debian GLIBC 2.36-9+rpt2) 2.36\n"
        "features Features\t: fp asimd evtstrm crc32 cpuid\nswap_kib 524284\nswap_free_kib 262142\n"
        "zone cpu-thermal 48692 80000\nzone nvme  \ncooling 0\ncooling 2\ngovernor ondemand\n"
        "throttled throttled=0x50005\nlinger 1\nsynchronised no\nenabled enabled-runtime\nlog_bytes 1000\n"
        "log_bytes   24\nisa neon (of: scalar neon)\nonnxruntime 1.22.0\nend 1\n"
    )

    assert told == Facts(
        now=1790000000, model="Raspberry Pi 4 Model B Rev 1.4", libc="ldd (Debian GLIBC 2.36-9+rpt2) 2.36",
        features=frozenset({"fp", "asimd", "evtstrm", "crc32", "cpuid"}), isa="neon (of: scalar neon)",
        swap_bytes=524284 * 1024, swap_used_bytes=262142 * 1024, zones=(Zone("cpu-thermal", 48.692, 80.0),),
        cooling=True, governor="ondemand", throttled=0x50005, linger=True, synchronised=False,
        enabled="enabled-runtime", log_bytes=1024, onnxruntime="1.22.0",
    )  # fmt: skip


def test_nonsense_of_a_device_never_ends_in_an_error():
    """Whatever a line holds: read or left out, and judged."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    words = ["now", "zone", "throttled", "cooling", "log_bytes", "features", "throttled=0x", "-", "-5", "1e9", "9" * 30,
             "\x1b[2J", "°", "", " ", "=", "throttled=", "0x50005", "x: y", ":"]  # fmt: skip
    for _ in range(3000):
        text = "\n".join(" ".join(chance.choices(words, k=chance.randint(0, 4))) for _ in range(6))
        try:
            judge_device(SOUND, parse_facts(text))
            judge_clock(parse_facts(text), 0.0, 1.0)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {text!r}") from error


class FakeTransport:
    """A device that answers by the script it is asked with."""

    def __init__(self, answers: dict[str, str], root: str) -> None:
        self.url, self.root, self._answers = "fake:device", root, answers

    def run(self, argv, *, input=None, timeout_s=60.0):
        for part, answer in self._answers.items():
            if part in argv:
                if answer == "gone":
                    raise TransportError("the device is gone. Switch it on")
                return Completed(answer, "", 0)
        return Completed("", "no such program", 127)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


PROBE = "root /r\nmachine aarch64\nelf b700\nuid 0\npage_bytes 4096\npython 3.11.2 /usr/bin/python3\nend 1\n"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({device_probe._SCRIPT: "gone"}, [("reachable", "fail")]),
        ({device_probe._SCRIPT: PROBE, facts._SCRIPT: "gone"}, [("reachable", "fail")]),
        ({device_probe._SCRIPT: PROBE, facts._SCRIPT: "now 1\n"}, [("reachable", "fail")]),
        (
            {device_probe._SCRIPT: PROBE + "pyz /r/p\nend 1\n", facts._SCRIPT: "now 1\nend 1\n", "status": "gone"},
            [("reachable", "ok"), ("still reachable", "fail")],
        ),
        (
            {device_probe._SCRIPT: PROBE + "pyz /r/p\nend 1\n", facts._SCRIPT: "now 1\nend 1\n", "status": "no JSON"},
            [("reachable", "ok"), ("installed", "fail")],
        ),
        (
            {device_probe._SCRIPT: PROBE, facts._SCRIPT: "now 1\nend 1\n"},
            [("reachable", "ok"), ("installed", "unknown")],
        ),
        (
            {device_probe._SCRIPT: "machine aarch64\nend 1\n", facts._SCRIPT: "now 1\nisa neon (of: neon)\nend 1\n"},
            [("reachable", "ok"), ("installed", "ok"), ("Python", "warn")],
        ),
    ],
    ids=[
        "gone at once",
        "gone later",
        "half an answer",
        "gone in the end",
        "mad agent",
        "nothing deployed",
        "no Python",
    ],
)
def test_a_device_that_goes_away_is_a_finding(monkeypatch, answers, expected):
    """What was found before stays in the report."""
    monkeypatch.setattr(device, "open_transport", lambda url, options: FakeTransport(answers, "/r"))

    findings = named(check_device("fake:device", Options()))

    assert [(name, findings[name].state) for name, _ in expected] == expected


def test_a_url_that_names_no_device_is_a_finding():
    """With the forms that there are."""
    (found,) = check_device("carrier-pigeon:x", Options())

    assert (found.name, found.state, "Write" in found.mend) == ("reachable", "fail", True)
