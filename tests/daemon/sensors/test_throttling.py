"""Throttling: now apart from has occurred, and how it is known without the firmware's program."""

import struct
from pathlib import Path

import pytest

from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.firmware import Firmware, Said
from edgebit.daemon.sensors.reading import NotHere, Unreadable
from edgebit.daemon.sensors.throttling import BITS, Throttling, held_back

ROOTS = Path(__file__).parents[1] / "roots"


class Says:
    """A firmware that says these bits in turn; an exception among them is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def throttled(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Said(answer, "firmware")


def values(throttling):
    return {reading.name: reading.value for reading in throttling.read()}


@pytest.mark.parametrize(
    ("bits", "now", "seen"),
    [
        (0x0, set(), set()),
        (0x1, {"undervoltage"}, {"undervoltage"}),
        (0x6, {"freq_capped", "throttled"}, {"freq_capped", "throttled"}),
        (0x8, {"soft_temp_limit"}, {"soft_temp_limit"}),
        (0x50000, set(), {"undervoltage", "throttled"}),
        (0xF000F, set(BITS), set(BITS)),
    ],
)
def test_bits(tmp_path, bits, now, seen):
    """0 to 3 are now, 16 to 19 have occurred: a sticky bit is no throttling."""
    found = values(Throttling(DeviceFiles(tmp_path), Says(bits)))
    assert {name for name in BITS if found[name]} == now
    assert {name for name in BITS if found[f"{name}_seen"]} == seen


def test_what_was_seen_stays_seen(tmp_path):
    """Others clear the firmware's own sticky bits, the kernel every two seconds."""
    throttling = Throttling(DeviceFiles(tmp_path), Says(0x50005, 0x0, Unreadable("asleep")))
    assert values(throttling)["throttled"] == 1
    after = values(throttling)
    assert (after["throttled"], after["throttled_seen"], after["freq_capped_seen"]) == (0, 1, 0)
    lost = values(throttling)
    assert (lost["throttled"], lost["throttled_seen"]) == (None, 1)


@pytest.mark.parametrize("bits", [0x10, 0x8000, 0x100000, 0xFFFFFFFF])
def test_bits_that_mean_nothing_are_no_reading(tmp_path, bits):
    """A driver's error value looks like everything at once."""
    found = values(Throttling(DeviceFiles(tmp_path), Says(bits)))
    assert set(found.values()) == {None}


def test_the_kernels_alarm_and_cooling_stand_in(tmp_path):
    """Without vcgencmd a Pi still has rpi_volt, and any device its cooling devices."""
    firmware = Says(*[NotHere("vcgencmd is not installed")] * 3)
    pi = {reading.name: reading for reading in Throttling(DeviceFiles(ROOTS / "pi5"), firmware).read()}
    assert (pi["undervoltage"].value, pi["undervoltage"].age_s) == (1.0, 2.0)
    assert "in0_lcrit_alarm" in pi["undervoltage"].source and pi["throttled"].value is None
    jetson = {reading.name: reading for reading in Throttling(DeviceFiles(ROOTS / "jetson"), firmware).read()}
    assert jetson["throttled"].value == 1.0 and jetson["undervoltage"].absent == "vcgencmd is not installed"
    assert values(Throttling(DeviceFiles(ROOTS / "laptop"), firmware))["throttled"] == 0.0  # its fan is at work


def test_held_back_is_none_where_nothing_can_tell(tmp_path):
    """`status` says null then, not false."""

    def status(bits):
        readings = Throttling(DeviceFiles(tmp_path), Says(bits)).read()
        return held_back({reading.name: reading for reading in readings})

    assert status(0x50000) is False and status(0x2) is True
    assert status(0x1) is False  # a low supply voltage alone slows nothing down
    assert status(Unreadable("gone")) is None


def mailbox(answer, *, code=0x80000000, tag=None):
    """An ioctl that answers a property tag as the firmware does."""

    def ioctl(handle, request, buffer):
        size, zero, asked, length, mark, *words = struct.unpack(f"={len(buffer) // 4}I", buffer)
        assert (size, zero, mark, words[-1]) == (len(buffer), 0, 0, 0)
        assert request & 0xFFFF == 100 << 8 and request >> 30 == 3
        values = answer(asked, words[: length // 4])
        struct.pack_into(
            f"=5I{len(values)}I", buffer, 0, size, code, tag or asked, length, 0x80000000 | length, *values
        )

    return ioctl


def said(asked, words):
    """Nothing is cleared: the request for the bits holds 0."""
    return {0x00030046: lambda: [0x50005] if words == [0] else [0], 0x00030047: lambda: [words[0], 1_500_398_464]}[
        asked
    ]()


def test_the_mailbox_spares_a_process(tmp_path):
    """Where /dev/vcio may be opened, vcgencmd is not run at all."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/vcio").touch()
    firmware = Firmware(DeviceFiles(tmp_path), ioctl=mailbox(said))
    assert firmware.throttled() == Said(0x50005, "/dev/vcio get_throttled")
    assert firmware.clock_hz() == Said(1_500_398_464, "/dev/vcio measure_clock arm")


@pytest.mark.parametrize("fault", [{"code": 0x80000001}, {"tag": 0x00010004}])
def test_a_mailbox_that_does_not_know_a_tag(tmp_path, fault):
    """Then vcgencmd is asked, and here it is not installed."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/vcio").touch()
    with pytest.raises(NotHere, match="vcgencmd is not installed"):
        Firmware(DeviceFiles(tmp_path), ioctl=mailbox(said, **fault)).throttled()


def test_a_file_is_no_mailbox(tmp_path):
    """The real ioctl on something else fails, and vcgencmd comes next."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/vcio").touch()
    with pytest.raises(NotHere):
        Firmware(DeviceFiles(tmp_path)).clock_hz()
