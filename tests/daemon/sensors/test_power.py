"""Power: every source on documented samples, the choice among them, and what they may not say."""

import shutil
from pathlib import Path

import pytest

from edgebit.daemon.config.sections import PowerConfig
from edgebit.daemon.sensors.battery_power import BatteryPower
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.ina import InaPower
from edgebit.daemon.sensors.kinds import power_of
from edgebit.daemon.sensors.pmic import RAILS, PmicPower, parse_rails
from edgebit.daemon.sensors.power import FROZEN_S, Correction, Power, PowerSample, power_reading
from edgebit.daemon.sensors.rapl import RaplPower
from edgebit.daemon.sensors.reading import NotHere, NothingNow, NotYet, Unreadable

ROOTS = Path(__file__).parents[1] / "roots"
BAT0 = "sys/class/power_supply/BAT0"


@pytest.fixture
def root(tmp_path):
    """Copies a made-up device, so that the test may break it; `put` writes a file of it."""

    def copy(name):
        shutil.copytree(ROOTS / name, tmp_path / name, symlinks=True)

        def put(file, text):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))

        return DeviceFiles(tmp_path / name), put

    return copy


def test_an_ina226():
    """Its own power figure; the chip's address and shunt stand in the source."""
    sample = InaPower(DeviceFiles(ROOTS / "ina226")).read()
    assert (sample.watts, sample.source) == (4.2975, "ina226 1-0040 (shunt 0.002 ohm)")
    assert sample.measured and sample.covers == "device" and sample.error == 0.02


def test_an_ina3221_has_no_power_file():
    """Volts times amperes, of the channel whose label says that it carries all."""
    sample = InaPower(DeviceFiles(ROOTS / "jetson")).read()
    assert sample.watts == pytest.approx(5.048 * 1.016)
    assert sample.source == "ina3221 1-0040 VDD_IN (shunt 0.005 ohm)" and sample.measured


def test_channels_without_a_total(root):
    """Their sum is an estimate: nobody says whether one holds another."""
    files, put = root("jetson")
    for number, label in ((1, "VDD_GPU_SOC"), (2, "VDD_CPU_CV"), (3, "VDDQ")):
        put(f"sys/class/hwmon/hwmon1/in{number}_label", label)
    put("sys/class/hwmon/hwmon1/in3_enable", "0")
    sample = InaPower(files).read()
    assert sample.watts == pytest.approx(5.048 * (1.016 + 0.136))
    assert not sample.measured and "VDD_GPU_SOC + VDD_CPU_CV" in sample.source and sample.error is None
    assert InaPower(files, "VDD_CPU_CV").read().watts == pytest.approx(5.048 * 0.136)


def test_several_chips_must_be_chosen(root):
    """By label or address, which stay the same when hwmonN does not."""
    files, put = root("ina226")
    for file, text in {"name": "ina219", "label": "usb", "in1_input": 5000, "curr1_input": 100}.items():
        put(f"sys/class/hwmon/hwmon9/{file}", text)
    with pytest.raises(
        Unreadable, match=r"several INA chips: ina226 1-0040, ina219 hwmon9 usb. Say which in \[power\]"
    ):
        InaPower(files).read()
    assert InaPower(files, "usb").read().watts == pytest.approx(0.5)
    assert InaPower(files, "1-0040").read().watts == 4.2975
    with pytest.raises(Unreadable, match="no INA chip or channel 'plug'"):
        InaPower(files, "plug").read()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("curr1_input", "-842", "wired the other way round"),
        ("power1_input", "0", "says 0 W, which no device that runs draws"),
        ("power1_input", "9000000000", "9e"),
        ("in1_input", "65535", "says 65.535 V, which cannot be"),
        ("curr1_input", "x", "is no number"),
        ("power1_input", "", "is empty"),
    ],
)
def test_an_ina_that_lies(root, file, text, words):
    """None of it becomes a power, least of all 0."""
    files, put = root("ina226")
    put(f"sys/class/hwmon/hwmon4/{file}", text)
    with pytest.raises(Unreadable, match=words):
        Power([InaPower(files)]).sample()


def test_rapl_counts_each_joule_once_and_wraps(root):
    """Package and memory, not the cores within the package, nor what intel-rapl-mmio says of the same package."""
    files, put = root("laptop")
    now = [100.0]
    rapl = RaplPower(files, clock=lambda: now[0])
    with pytest.raises(NotYet, match="read once only"):
        rapl.read()
    now[0] = 102.0
    put("sys/class/powercap/intel-rapl:0/energy_uj", 19_671_150)  # 328,850 uJ before the wrap
    put("sys/class/powercap/intel-rapl:0:1/energy_uj", 9_000_000)
    sample = rapl.read()
    assert sample.watts == pytest.approx((20.0 + 4.0) / 2)
    assert (sample.since, sample.at, sample.covers) == (100.0, 102.0, "processor and memory")
    now[0] = 102.01
    assert rapl.read() is sample  # too soon for another


def test_rapl_that_stands_still(root):
    """No processor that runs draws nothing: the counter is dead."""
    files, _ = root("laptop")
    now = [0.0]
    rapl = RaplPower(files, clock=lambda: now[0])
    with pytest.raises(NotYet):
        rapl.read()
    now[0] = 4.0
    with pytest.raises(Unreadable, match=r"stood still for 4\.0 s"):
        rapl.read()
    now[0] = 5.0
    with pytest.raises(Unreadable, match=r"stood still for 5\.0 s"):
        rapl.read()


def test_rapl_after_a_sleep(root):
    """A counter may have wrapped more than once: begin anew."""
    files, put = root("laptop")
    now = [0.0]
    rapl = RaplPower(files, clock=lambda: now[0])
    with pytest.raises(NotYet):
        rapl.read()
    now[0] = 4000.0
    put("sys/class/powercap/intel-rapl:0:1/energy_uj", 9_000_000)
    with pytest.raises(NotYet):
        rapl.read()


def test_rapl_of_the_whole_platform(root):
    """psys covers more than the package and is taken instead."""
    files, put = root("laptop")
    now = [0.0]
    put("sys/class/powercap/intel-rapl:1/name", "psys")
    put("sys/class/powercap/intel-rapl:1/energy_uj", 10_000_000)
    rapl = RaplPower(files, clock=lambda: now[0])
    with pytest.raises(NotYet):
        rapl.read()
    now[0] = 2.0
    put("sys/class/powercap/intel-rapl:1/energy_uj", 40_000_000)
    assert (rapl.read().watts, rapl.read().covers) == (15.0, "device")


def test_rapl_that_went_back_without_saying_where_it_wraps(root):
    """A driver that was loaded anew, and a missing range."""
    files, put = root("laptop")
    (files.root / "sys/class/powercap/intel-rapl:0/max_energy_range_uj").unlink()
    rapl = RaplPower(files, clock=iter([0.0, 1.0]).__next__)
    with pytest.raises(NotYet):
        rapl.read()
    put("sys/class/powercap/intel-rapl:0/energy_uj", 5)
    with pytest.raises(Unreadable, match="max_energy_range_uj"):
        rapl.read()


def test_a_battery_feeds_the_device_only_while_it_is_discharged(root):
    """The sign of the current is the driver's whim; `status` decides. The mouse's battery is not the laptop's."""
    files, put = root("laptop")
    assert BatteryPower(files).read().watts == pytest.approx(11.7 * 1.19)
    put(f"{BAT0}/current_now", -1_190_000)
    assert BatteryPower(files).read().watts == pytest.approx(11.7 * 1.19)
    put(f"{BAT0}/power_now", 14_000_000)
    assert BatteryPower(files).read().watts == 14.0
    put(f"{BAT0}/status", "Charging")
    with pytest.raises(NothingNow, match="not being discharged"):
        BatteryPower(files).read()


def test_a_source_that_rests_is_not_broken():
    """Whatever is wrong with those that never worked; once it has a fault itself, that is said."""
    now = 1000.0
    battery, rapl = Fake("battery", watts(9.0)), Fake("rapl", Unreadable("forbidden"))
    power = Power([battery, rapl], clock=lambda: now)
    assert power.sample().watts == 9.0
    for says, kind in ((NothingNow("plugged in"), NothingNow), (Unreadable("gone"), Unreadable)):
        battery.answer = says
        now += 60
        with pytest.raises(Unreadable, match=str(says)) as why:
            power.sample()
        assert type(why.value) is kind


def test_a_battery_that_counts_in_milliamperes(root):
    """It would pass for a device that draws next to nothing."""
    files, put = root("laptop")
    put(f"{BAT0}/current_now", 1190)
    with pytest.raises(Unreadable, match="counts in another unit"):
        BatteryPower(files).read()


def test_the_rails_of_a_pi5_are_paired_by_name():
    """Current 7 and voltage 15 are one rail; EXT5V and BATT have no current and do not count."""
    sample = PmicPower(DeviceFiles(ROOTS / "pi5")).read()
    by_hand = (
        0.0585558 * 3.610692
        + 0.06148359 * 3.299826
        + 0.1327265 * 1.816848
        + 0.139558 * 1.101098
        + 0.009804 * 0.6036624
        + 0.1981138 * 1.102929
        + 0.3415755 * 0.8029296
        + 5.03652 * 0.8936988
        + 0.00006105 * 3.299447
        + 0.00054945 * 3.304026
        + 0.00531135 * 0.7961898
        + 0.0216117 * 4.9245
    )
    assert sample.watts == pytest.approx(1.1327 * by_hand + 0.6444)
    assert sample.source == "pmic_sum_fit 1.1327 * sum + 0.6444"
    assert not sample.measured and sample.error is None
    assert PmicPower(DeviceFiles(ROOTS / "pi5"), calibrated=True).read().watts == pytest.approx(by_hand)


def test_a_pi4_has_no_such_chip():
    """Its vcgencmd does not know the command; it is not asked again."""
    pmic = PmicPower(DeviceFiles(ROOTS / "pi4"))
    for _ in range(2):
        with pytest.raises(NotHere, match="no Raspberry Pi 5"):
            pmic.read()


@pytest.mark.parametrize("missing", ["VDD_CORE_A", "HDMI_V"])
@pytest.mark.parametrize("spoilt", ["", "VDD_CORE_A current(7)=nanA", "HDMI_V volt(23)=-1V", "VDD_CORE_A volt(7)=1.0V"])
def test_a_sum_without_a_rail_is_none(missing, spoilt):
    """It would be too small, and look like a figure."""
    lines = [f"{rail}_{kind} x(1)=1.0{kind}" for rail in RAILS for kind in "AV" if f"{rail}_{kind}" != missing]
    text = "\n".join([*lines, spoilt]).replace("x(", "volt(")
    with pytest.raises(Unreadable, match=f"lacks {missing[:-2]}"):
        parse_rails(text)


class Fake:
    """A source whose samples the test gives; an exception among them is raised."""

    every_s = 0.2

    def __init__(self, kind, answer):
        self.kind = kind
        self.answer = answer
        self.closed = False

    def read(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self):
        self.closed = True


def watts(value, **more):
    return PowerSample(at=0.0, watts=value, source="fake", **more)


def test_the_first_source_that_works_is_taken_and_a_better_one_later():
    """A better one that was not there is looked for every 10 s."""
    now = [0.0]
    meter, chip = Fake("serial", NotHere("none")), Fake("ina", watts(3.0))
    power = Power([meter, chip], clock=lambda: now[0])
    assert power.sample().watts == 3.0
    meter.answer = watts(5.0)
    assert power.sample().watts == 3.0
    now[0] = 10.0
    assert power.sample().watts == 5.0


def test_a_source_that_fails_is_given_time_and_then_replaced():
    """One EAGAIN does not change what the figure is about."""
    now = [0.0]
    chip, estimate = Fake("ina", watts(3.0)), Fake("pmic", watts(4.0))
    power = Power([chip, estimate], clock=lambda: now[0])
    assert power.sample().watts == 3.0
    chip.answer = Unreadable("asleep")
    now[0] = 2.9
    with pytest.raises(Unreadable, match="asleep"):
        power.sample()
    now[0] = 3.0
    assert power.sample().watts == 4.0


def test_a_single_source_is_asked_each_time():
    """Who names one wants that one."""
    now = [0.0]
    chip = Fake("ina", Unreadable("asleep"))
    power = Power([chip], clock=lambda: now[0])
    with pytest.raises(Unreadable, match="asleep"):
        power.sample()
    chip.answer = watts(3.0)
    assert power.sample().watts == 3.0


def test_why_there_is_no_power():
    """A broken one is the reason; where there is none at all, what was looked for."""
    with pytest.raises(NotHere, match=r"no power sensor \(looked for: a, b\)"):
        Power([Fake("a", NotHere("x")), Fake("b", NotHere("y"))]).sample()
    with pytest.raises(Unreadable, match=r"^forbidden$"):
        Power([Fake("a", NotHere("x")), Fake("b", Unreadable("forbidden"))]).sample()
    with pytest.raises(NotHere, match="looked for: none"):
        Power([]).sample()


def test_a_chip_that_says_exactly_the_same_for_long_is_stuck():
    """And it does not recover by being looked at beside another source."""
    now = [0.0]
    chip, other = Fake("ina", watts(3.0, raw=(5.0, 0.6))), Fake("rapl", watts(9.0))
    power = Power([chip, other], clock=lambda: now[0])
    for now[0] in (0.0, FROZEN_S):
        assert power.sample().watts == 3.0
    now[0] = FROZEN_S + 1
    with pytest.raises(Unreadable, match=f"exactly the same for {FROZEN_S + 1:.0f} s: it is stuck"):
        power.sample()
    for now[0] in (FROZEN_S + 10, FROZEN_S + 20, FROZEN_S + 30):
        assert power.sample().watts == 9.0
    chip.answer = watts(3.0, raw=(5.0, 0.601))
    now[0] = FROZEN_S + 40
    assert power.sample().watts == 3.0


def test_two_points_of_a_meter_correct_a_source():
    """The line through them; what is known of the error comes from the configuration."""
    power = power_of(DeviceFiles(ROOTS / "pi5"), PowerConfig(source="pmic", calibration=(2, 3, 6, 8), error=0.03), 2.0)
    sample = power.sample()
    bare = PmicPower(DeviceFiles(ROOTS / "pi5"), calibrated=True).read().watts
    assert sample.watts == pytest.approx(0.5 + 1.25 * bare)
    assert sample.source == "pmic_sum, calibrated" and sample.error == 0.03 and not sample.measured


@pytest.mark.parametrize("points", [(1, 2, 1, 3), (1, 2, 3, 1), (1, 2, 3, 2)])
def test_points_that_give_no_line(points):
    """More said must mean more drawn."""
    with pytest.raises(ValueError):
        Correction.through(points, None)


@pytest.mark.parametrize(
    ("root", "source", "words"),
    [
        ("laptop", "auto", "battery /sys/class/power_supply/BAT0"),
        ("jetson", "auto", "ina3221"),
        ("pi5", "auto", "pmic_sum_fit"),
        ("pi5", "pmic", "pmic_sum_fit"),
    ],
)
def test_the_order_of_sources(root, source, words):
    """A chip, then the battery, RAPL, and last the estimate."""
    assert words in power_of(DeviceFiles(ROOTS / root), PowerConfig(source=source), 2.0).sample().source


@pytest.mark.parametrize(
    ("root", "source", "words"),
    [
        ("pc", "auto", "no power sensor"),
        ("pi4", "auto", "no power sensor"),
        ("phone", "auto", "no power sensor"),
        ("pi5", "none", "looked for: none"),
        ("pi5", "ina", "no INA chip"),
        ("broken", "auto", "is no number"),
    ],
)
def test_no_power(root, source, words):
    """Absent with the reason."""
    with pytest.raises(Unreadable, match=words):
        power_of(DeviceFiles(ROOTS / root), PowerConfig(source=source), 2.0).sample()


def test_closing_closes_all():
    """Also those that are not used."""
    sources = [Fake("a", watts(1.0)), Fake("b", watts(1.0))]
    Power(sources).close()
    assert all(source.closed for source in sources)


def test_the_reading_says_what_it_is_not_about():
    """A processor's power must not pass for the device's."""
    reading = power_reading(watts(12.3456, covers="processor"), 1.5)
    assert (reading.value, reading.age_s, reading.source) == (12.346, 1.5, "fake: processor only")
