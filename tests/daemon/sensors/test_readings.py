"""Every kind on every made-up device: found by what it is, with its source, and absent rather than 0."""

import json
import os
import shutil
from pathlib import Path

import pytest

from edgebit.daemon.config.sections import SensorsConfig
from edgebit.daemon.sensors.battery import Battery, parse_termux
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.kinds import sensors_of
from edgebit.daemon.sensors.reading import Reading, Unreadable, take

ROOTS = Path(__file__).parents[1] / "roots"
NAMES = {
    *("t_soc", "clock", "clock_asked", "fan", "disk_free", "load_1m", "load_5m", "uptime"),
    *("undervoltage", "freq_capped", "throttled", "soft_temp_limit"),
    *("undervoltage_seen", "freq_capped_seen", "throttled_seen", "soft_temp_limit_seen"),
    *("mem_total", "mem_available", "psi_cpu", "psi_memory", "psi_memory_full", "psi_io"),
    *("battery", "t_battery", "charging", "mains"),
}


def read(root: Path) -> dict[str, Reading]:
    sensors = sensors_of(DeviceFiles(root), SensorsConfig(), Path(__file__).parent)
    return {reading.name: reading for sensor in sensors for reading in sensor.read()}


@pytest.fixture(scope="module")
def device():
    """What a device's sensors say, by the name of its root; read once."""
    known: dict[str, dict[str, Reading]] = {}

    def readings(name: str) -> dict[str, Reading]:
        if name not in known:
            known[name] = read(ROOTS / name)
        return known[name]

    return readings


@pytest.mark.parametrize("root", [*sorted(path.name for path in ROOTS.iterdir() if path.is_dir()), "nothing"])
def test_every_device_has_all_names(device, root):
    """Each is there with a unit and a source, and with a value or the reason why not, never both."""
    readings = device(root)
    assert set(readings) == NAMES
    for reading in readings.values():
        body = reading.to_json()
        assert body["unit"] and body["source"]
        assert ("value" in body) != bool(body.get("absent")), body


@pytest.mark.parametrize(
    ("root", "celsius", "kind"),
    [
        ("pi4", 48.2, "cpu-thermal"),
        ("rk3588", 51.0, "soc-thermal"),
        ("pc", 48.8, "x86_pkg_temp"),
        ("laptop", 61.0, "coretemp"),
        ("jetson", 47.3, "cpu-thermal"),
    ],
)
def test_the_processors_temperature_is_found_by_its_type(device, root, celsius, kind):
    """The number of a zone means nothing: on a PC the first one is the mainboard's."""
    reading = device(root)["t_soc"]
    assert (reading.value, reading.unit) == (celsius, "C")
    assert kind in reading.source and reading.measured


def test_a_phones_battery_does_not_pass_for_its_processor(device):
    """The reason names what was there instead."""
    assert "battery" in device("phone")["t_soc"].absent


@pytest.mark.parametrize(
    ("root", "mhz", "measured", "asked"),
    [
        ("pi4", 1500.4, True, 1500.0),
        ("pi5", 1600.5, True, 2400.0),
        ("rk3588", 2400.0, False, 2400.0),
        ("pc", 3400.1, False, 3400.1),
    ],
)
def test_the_true_clock_stands_apart_from_the_one_asked_for(device, root, mhz, measured, asked):
    """A throttled Pi 5 runs slower than its cpufreq says. Without a measured clock the other stands in, and says so."""
    readings = device(root)
    assert (readings["clock"].value, readings["clock"].measured) == (mhz, measured)
    assert (readings["clock_asked"].value, readings["clock_asked"].measured) == (asked, False)


def test_all_of_a_raspberry_pi(device):
    """Values and units of everything that a Pi 4 has."""
    found = {n: (r.value, r.unit) for n, r in device("pi4").items() if r.value is not None and n != "disk_free"}
    flags = ("undervoltage", "freq_capped", "throttled", "soft_temp_limit")
    assert found == {
        "t_soc": (48.2, "C"),
        "clock": (1500.4, "MHz"),
        "clock_asked": (1500.0, "MHz"),
        **dict.fromkeys(flags, (0.0, "1")),
        **{f"{flag}_seen": (0.0, "1") for flag in flags},
        "load_1m": (0.52, "1"),
        "load_5m": (0.58, "1"),
        "mem_total": (3793.2, "MiB"),
        "mem_available": (3146.0, "MiB"),
        "uptime": (87921.33, "s"),
    }


def test_pressure_and_fan(device):
    """`full` of memory is a reading of its own; a fan's PWM beats its step."""
    readings = device("pi5")
    assert [readings[name].value for name in ("psi_cpu", "psi_memory", "psi_memory_full", "psi_io")] == [
        12.5,
        3.1,
        1.25,
        0.42,
    ]
    assert (readings["fan"].value, readings["fan"].measured) == (98.0, True)
    assert (device("jetson")["fan"].value, device("jetson")["fan"].measured) == (33.3, False)


@pytest.mark.parametrize(
    ("root", "battery", "celsius", "charging"),
    [("laptop", 73.0, None, 0.0), ("handheld", 41.0, 31.8, 1.0), ("phone", 85.0, 22.3, 0.0)],
)
def test_a_battery(device, root, battery, celsius, charging):
    """The mouse's does not count, a negative current does not mean discharging, and Termux may quote its numbers."""
    readings = device(root)
    assert readings["battery"].value == battery
    assert readings["t_battery"].value == celsius
    assert readings["charging"].value == charging


@pytest.mark.parametrize(
    ("status", "supplies", "mains"),
    [
        ("Charging", {}, 1.0),
        ("Discharging", {}, 0.0),
        ("Discharging", {"Mains": "1"}, 0.0),
        ("Not charging", {}, 1.0),
        ("Not charging", {"Mains": "1"}, 1.0),
        ("Not charging", {"Mains": "0"}, 0.0),
        ("Full", {"Mains": "0", "USB_PD": "1"}, 1.0),
        ("Unknown", {"USB": "1"}, 1.0),
        ("Unknown", {"USB": "0"}, 0.0),
        ("Unknown", {"UPS": "1"}, None),
        ("Unknown", {}, None),
    ],
)
def test_on_mains_or_on_battery(tmp_path, status, supplies, mains):
    """A full battery, or one that is not charged to spare it, does not feed the device."""
    files = {"BAT0/type": "Battery", "BAT0/status": status, "BAT0/capacity": "8"}
    for kind, online in supplies.items():
        files |= {f"{kind}/type": kind, f"{kind}/online": online}
    for name, text in files.items():
        path = tmp_path / "sys/class/power_supply" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert {reading.name: reading.value for reading in Battery(DeviceFiles(tmp_path)).read()}["mains"] == mains


@pytest.mark.parametrize(
    ("status", "plugged", "mains"),
    [("FULL", "PLUGGED_AC", 1.0), ("NOT_CHARGING", "UNPLUGGED", 0.0), ("NOT_CHARGING", None, 1.0),
     ("DISCHARGING", "PLUGGED_USB", 0.0), ("UNKNOWN", "PLUGGED_USB", 1.0), (None, 7, None)],
)  # fmt: skip
def test_on_mains_as_termux_says_it(status, plugged, mains):
    found = parse_termux(json.dumps({"status": status, "plugged": plugged})).readings(0.0)
    assert {reading.name: reading.value for reading in found}["mains"] == mains


@pytest.mark.parametrize(
    ("root", "present"),
    [
        ("phone", {"mem_total", "mem_available", "uptime", "battery", "t_battery", "charging", "mains", "disk_free"}),
        ("broken", {"disk_free", "psi_memory"}),
        ("nothing", {"disk_free"}),
    ],
)
def test_what_is_not_there_is_absent_with_a_reason(device, root, present):
    """Never 0: a cold processor and a missing sensor must not look alike."""
    assert {name for name, reading in device(root).items() if reading.value is not None} == present


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t_soc", "cannot be"),
        ("undervoltage", "vcgencmd get_throttled failed with 255: VCHI initialization failed"),
        ("fan", "says 352.9, which cannot be"),
        ("mem_total", "/proc/meminfo has no MemTotal"),
        ("psi_cpu", "has no line 'some'"),
        ("psi_memory_full", "has no line 'full'"),
        ("psi_io", "/proc/pressure/io is empty"),
        ("battery", "says 143, which cannot be"),
        ("t_battery", "says 'nan', which is no number"),
        ("charging", "its status is 'Unknown'"),
        ("mains", "its status is 'Unknown', and no supply"),
    ],
)
def test_the_reasons_say_what_is_wrong(device, name, words):
    """In the reading itself, for whoever looks at the metrics."""
    assert words in device("broken")[name].absent


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"hot", "says 'hot', which is no number"),
        (b"\xff\xfe4\x002", "is not text"),
        (b"1e400", "is no number"),
        (b"nan", "is no number"),
        (b"4_2", "is no number"),
        (b"9" * 300, "is no number"),
        (b"0x20", "is no number"),
        (b"1" * 100_000, "more than 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_number(tmp_path, content, words):
    """Each way to be wrong has its words."""
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(Unreadable, match=words):
        DeviceFiles(tmp_path).number("f")


@pytest.mark.parametrize(("number", "text"), [(-300.5, "-300.5"), (0.0, "0\n"), (81850.0, " +81850 ")])
def test_a_file_that_holds_a_number(tmp_path, number, text):
    """With its sign, and blanks around it."""
    (tmp_path / "f").write_text(text)
    assert DeviceFiles(tmp_path).number("f") == number


@pytest.mark.parametrize("error", [11, 5, 19, 13])
def test_a_sensor_that_answers_with_an_error(tmp_path, monkeypatch, error):
    """Asleep (EAGAIN), broken (EIO), unplugged (ENODEV), forbidden (EACCES): the reason is the system's own."""
    shutil.copytree(ROOTS / "pi4", tmp_path / "pi4")
    real = os.read

    def fail(handle, size):
        if Path(f"/proc/self/fd/{handle}").readlink().name == "temp":
            raise OSError(error, os.strerror(error))
        return real(handle, size)

    monkeypatch.setattr(os, "read", fail)
    reading = read(tmp_path / "pi4")["t_soc"]
    assert reading.value is None and os.strerror(error) in reading.absent


def test_a_pipe_is_not_waited_for(tmp_path):
    """A file that never ends to be read would hold up all other sensors."""
    os.mkfifo(tmp_path / "f")
    with pytest.raises(Unreadable, match="empty"):
        DeviceFiles(tmp_path).text("f")


@pytest.mark.parametrize(
    ("kinds", "best"),
    [
        (("AO-therm", "CPU-therm", "GPU-therm"), "CPU-therm"),
        (("cpu-1-0-usr", "battery", "soc-thermal"), "soc-thermal"),
        (("acpitz", "x86_pkg_temp"), "x86_pkg_temp"),
        (("battery", "GPU-therm"), None),
    ],
)
def test_the_zone_of_the_processor_is_chosen_by_its_type(tmp_path, kinds, best):
    """Whatever its number, and however a maker writes it; another part's temperature is not taken for it."""
    for number, kind in enumerate(kinds):
        zone = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(f"{40 + number}000\n")
    reading = read(tmp_path)["t_soc"]
    assert reading.value == (None if best is None else 40.0 + kinds.index(best))


def test_a_zone_that_vanishes_is_looked_for_anew(tmp_path):
    """Drivers go and come back under another number; between being listed and being read, too."""
    root = tmp_path / "pi4"
    shutil.copytree(ROOTS / "pi4", root)
    zones = root / "sys/class/thermal"
    assert read(root)["t_soc"].value == 48.2
    (zones / "thermal_zone0/temp").unlink()
    assert "there is no /sys/class/thermal/thermal_zone0/temp" in read(root)["t_soc"].absent
    shutil.rmtree(zones / "thermal_zone0")
    assert "there are: none" in read(root)["t_soc"].absent
    shutil.copytree(ROOTS / "pi4/sys/class/thermal/thermal_zone0", zones / "thermal_zone7")
    assert "thermal_zone7" in read(root)["t_soc"].source and read(root)["t_soc"].value == 48.2


@pytest.mark.parametrize("value", [151.0, -41.0, float("nan"), float("inf")])
def test_what_cannot_be_is_absent(value):
    """A sensor that lies is as good as none."""
    reading = take("t", "C", "s", lambda: value, within=(-40, 150))
    assert reading.value is None and "which cannot be" in reading.absent


def test_a_disks_folder_need_not_be_there(tmp_path):
    """The state folder is made later than the first reading."""
    from edgebit.daemon.sensors.disk import Disk

    (reading,) = Disk(tmp_path / "a" / "b").read()
    assert reading.value is not None and reading.value > 0
