"""edgebitd sensors, as it is typed: on made-up devices, and with somebody who answers its questions."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from edgebit.daemon.__main__ import main
from edgebit.daemon.config.reader import read_config
from edgebit.daemon.config.sections import PowerConfig
from edgebit.daemon.sensors import console
from edgebit.daemon.sensors.calibration import Said, listen, settings, uncalibrated
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.energy_ledger import EnergyLedger
from edgebit.daemon.sensors.kinds import power_of
from edgebit.daemon.sensors.listing import table, take_all
from edgebit.daemon.sensors.power import Power, PowerSample
from edgebit.daemon.sensors.reading import NotYet, Unreadable
from edgebit.daemon.sensors.sampler import Sampler
from edgebit.errors import SensorError

ROOTS = Path(__file__).parents[1] / "roots"
POWER_FILE = "sys/class/hwmon/hwmon4/power1_input"


@pytest.fixture
def config_of(tmp_path):
    """The configuration of a made-up device; `power` goes into its section."""

    def write(root, power=""):
        path = tmp_path / "edgebitd.toml"
        path.write_text(
            f'[report]\nsensors_root = "{root}"\n[sensors]\ninterval_s = 0.1\n[power]\ninterval_s = 0.05\n{power}\n'
        )
        return path

    return write


@pytest.mark.parametrize("root", ["pi5", "ina226", "laptop", "phone", "broken"])
def test_every_reading_is_printed_with_its_source_or_its_reason(config_of, capsys, root):
    """Those that are absent too; the table and the JSON say the same."""
    config = str(config_of(ROOTS / root))
    assert main(["sensors", "--config", config, "--json"]) == 0
    readings = json.loads(capsys.readouterr().out)
    assert {"t_soc", "throttled", "clock", "psi_memory", "battery", "power", "energy_total"} <= set(readings)
    for reading in readings.values():
        assert ("value" in reading and reading["source"]) or reading["absent"], reading
    assert main(["sensors", "--config", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(readings)
    for line, reading in zip(lines, readings.values(), strict=True):
        words = reading["absent"] if "absent" in reading else reading["source"]
        assert words in line or "energy_total" in line or "uptime" in line
        assert ("(not measured)" in line) == ("value" in reading and not reading["measured"])


class Asked:
    """A meter that has its first sample at the sixth look."""

    kind, every_s, looks = "fake", 0.1, 0

    def read(self):
        self.looks += 1
        if self.looks < 6:
            raise NotYet("nothing has come yet")
        return PowerSample(at=float(self.looks), watts=4.31, source="meter")


def test_power_is_waited_for():
    """It is the reading that takes longest; what is not there is not waited for."""
    waits = []
    sampler = Sampler([], Power([Asked()]), EnergyLedger(3.0), interval_s=0.5)
    readings = take_all(sampler, wait=waits.append)
    assert readings["power"]["value"] == 4.31 and len(waits) == 5
    assert table(readings)[0].split()[:3] == ["power", "4.31", "W"] and table(readings)[0].endswith(" s meter")
    assert (
        "no power sensor" in take_all(Sampler([], Power([]), EnergyLedger(3.0)), wait=waits.append)["power"]["absent"]
    )
    assert len(waits) == 6


def test_a_configuration_that_is_wrong_is_refused(config_of, capsys):
    """As by the daemon itself."""
    assert main(["sensors", "--config", str(config_of(ROOTS / "pi4", "port = 3"))]) == 13
    assert main(["sensors", "--config", str(config_of(ROOTS / "pi4")), "--calibrate", "--json"]) == 13
    assert "leave --json out" in capsys.readouterr().err


class Somebody:
    """Types the answers, and sets what the device draws before each Enter."""

    def __init__(self, root, *points):
        self.root = root
        self.lines = [line for watts, answers in points for line in ((watts, ""), *((None, each) for each in answers))]

    def readline(self):
        if not self.lines:
            return ""
        watts, text = self.lines.pop(0)
        if watts is not None:
            (self.root / POWER_FILE).write_text(f"{watts * 1e6:.0f}\n")
        return text + "\n"


def test_two_points_make_a_calibration_that_holds(config_of, tmp_path, capsys, monkeypatch):
    """Its lines go into [power] as they are; then the source says what the meter said."""
    root = tmp_path / "device"
    shutil.copytree(ROOTS / "ina226", root, symlinks=True)
    monkeypatch.setattr(sys, "stdin", Somebody(root, (2.0, ["zero", "-1", "2,5"]), (6.0, ["6.9"])))
    console.calibrate(read_config(config_of(root)), seconds=0.5)
    printed = capsys.readouterr()
    assert printed.out == 'source = "ina"\ncalibration = [2.0, 2.5, 6.0, 6.9]\n'
    assert "'zero' are no watts" in printed.err and "ina226 1-0040" in printed.err
    config = read_config(config_of(root, printed.out))
    power = power_of(DeviceFiles(root), config.power, 1.0)
    assert power.sample().watts == pytest.approx(6.9)
    (root / POWER_FILE).write_text("4000000\n")
    assert power.sample().watts == pytest.approx(4.7)


def test_who_goes_away_gets_no_settings(config_of, tmp_path, capsys, monkeypatch):
    """Half a calibration is none."""
    monkeypatch.setattr(sys, "stdin", Somebody(tmp_path))
    with pytest.raises(SensorError, match="was not finished"):
        console.calibrate(read_config(config_of(ROOTS / "ina226")))
    assert capsys.readouterr().out == ""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


def listened(says, seconds=5.0):
    """What is heard of a source that says `says(now)` each half second."""
    clock = Clock()

    class Source:
        kind, every_s = "fake", 0.5

        def read(self):
            return PowerSample(at=clock(), watts=says(clock()), source="fake 1", raw=())

    return listen(Power([Source()], clock=clock), seconds, clock=clock, wait=clock.wait)


def test_the_mean_is_of_all_that_was_said():
    """With its ends, for power that swings is no point."""
    said = listened(lambda now: 4.0 + (now * 2) % 2)
    assert (said.kind, said.source, said.watts, said.least_w, said.most_w) == ("fake", "fake 1", 4.5, 4.0, 5.0)
    assert not said.is_steady and listened(lambda now: 4.0).is_steady


def never(now):
    raise Unreadable("/dev/ttyUSB0: silent for 5 s")


def not_yet(now):
    raise NotYet("it is being asked")


@pytest.mark.parametrize(("says", "why"), [(never, "silent for 5 s"), (not_yet, "0 samples in 5 s")])
def test_without_power_there_is_nothing_to_calibrate(says, why):
    """The reason is the sensor's own."""
    with pytest.raises(SensorError, match=why):
        listened(says)


@pytest.mark.parametrize(
    ("busy", "true_w", "why"),
    [
        (Said("ina", "ina", 2.0, 2.0, 2.0), 5.0, "the same reading"),
        (Said("ina", "ina", 6.0, 6.0, 6.0), 1.0, "more said must mean more drawn"),
        (Said("pmic", "pmic_sum", 6.0, 6.0, 6.0), 5.0, "the source changed from ina to pmic_sum"),
    ],
)
def test_points_that_make_no_line(busy, true_w, why):
    """Two different ones of one source, of which more is more."""
    with pytest.raises(SensorError, match=why):
        settings(Said("ina", "ina", 2.0, 2.0, 2.0), 2.5, busy, true_w)


def test_the_pmics_points_are_of_its_bare_sum():
    """As the calibration will be applied."""
    power = power_of(DeviceFiles(ROOTS / "pi5"), uncalibrated(PowerConfig(source="pmic")), 10.0)
    for _ in range(40):
        try:
            sample = power.sample()
        except NotYet:
            continue
        break
    assert sample.source == "pmic_sum, calibrated"
