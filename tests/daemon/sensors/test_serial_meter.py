"""A serial meter on a pseudo-terminal: a real line discipline, real pyserial, and all that can happen to a cable."""

import os

import pytest
from meter_messages import frame, line
from serial_wire import Wire, read

from edgebit.daemon.sensors.reading import NotHere, NotYet, Unreadable
from edgebit.daemon.sensors.serial_meter import SerialMeter

pytest.importorskip("serial", reason="pyserial is not installed")


@pytest.fixture
def wire(tmp_path):
    wire = Wire(tmp_path / "ttyMETER")
    yield wire
    wire.close()


@pytest.fixture
def meter(wire):
    """A meter that is open and has said nothing yet."""
    meter = wire.meter()
    with pytest.raises(NotYet, match="nothing has come yet"):
        meter.read()
    yield meter
    meter.close()


def test_a_sample(meter, wire):
    """Where it comes from stands in it."""
    sample = read(meter, wire, line("EB1 V=5.123 A=0.842 W=4.31") + b"\n", 0.2)
    assert (sample.watts, sample.at, sample.since) == (4.31, 0.2, None)
    assert sample.source == f"line meter {wire.name}" and sample.measured and sample.raw == (5.123, 0.842, 4.31)


def test_several_lines_are_their_mean(meter, wire):
    """From the look before to this one."""
    read(meter, wire, line("EB1 W=1") + b"\n", 0.5)
    sample = read(meter, wire, b"".join(line(f"EB1 W={n}") + b"\n" for n in (2, 3, 7)), 1.5)
    assert (sample.watts, sample.since, sample.at) == (4.0, 0.5, 1.5)


def test_half_a_line_waits_for_the_other_half(meter, wire):
    """Meanwhile the last sample stands, with its own time."""
    read(meter, wire, line("EB1 W=4") + b"\n", 0.2)
    whole = line("EB1 W=5") + b"\n"
    wire.say(whole[:6])
    wire.now = 0.4
    assert meter.read().at == 0.2
    assert read(meter, wire, whole[6:], 0.6).watts == 5.0


def test_a_silent_meter_is_absent_with_its_age(meter, wire):
    """Not 0, and not the last figure for ever."""
    read(meter, wire, line("EB1 W=4") + b"\n", 1.0)
    wire.now = 4.0
    assert meter.read().at == 1.0
    wire.now = 13.0
    with pytest.raises(Unreadable, match=f"{wire.name}: silent for 12 s"):
        meter.read()
    assert read(meter, wire, line("EB1 W=5") + b"\n", 14.0).watts == 5.0


def test_garbage_is_named(meter, wire):
    """Most often it is the wrong rate."""
    wire.say(os.urandom(300).replace(b"\n", b"x"))
    for wire.now in (0.1, 0.2, 0.3):
        with pytest.raises(NotYet):
            meter.read()
    wire.now = 5.0
    with pytest.raises(Unreadable, match=r"300 bytes came in 5 s and none are of a line meter .*115200 baud"):
        meter.read()
    assert read(meter, wire, b"\n" + line("EB1 W=5") + b"\n", 6.0).watts == 5.0


def test_a_meter_that_says_why_it_has_nothing(meter, wire):
    """Its own words are the reason, until it has a sample again."""
    wire.say(b"# no INA219 answers\n")
    wire.now = 0.1
    with pytest.raises(NotYet):
        meter.read()
    wire.now = 5.0
    with pytest.raises(Unreadable, match=f"{wire.name}: the meter says: no INA219 answers"):
        meter.read()
    assert read(meter, wire, line("EB1 W=5") + b"\n", 6.0).watts == 5.0
    wire.now = 20.0
    with pytest.raises(Unreadable, match="silent for 14 s"):
        meter.read()


def test_a_meter_that_is_unplugged_and_comes_back(meter, wire):
    """The port is opened anew by itself, every two seconds."""
    read(meter, wire, line("EB1 W=4") + b"\n", 1.0)
    wire.unplug()
    wire.now = 1.2
    with pytest.raises(Unreadable, match="the line broke"):
        meter.read()
    wire.now = 3.5
    with pytest.raises(Unreadable, match="there is no such port"):
        meter.read()
    wire.plug()
    wire.now = 4.0
    with pytest.raises(Unreadable, match="there is no such port"):
        meter.read()
    wire.now = 6.0
    with pytest.raises(NotYet):
        meter.read()
    sample = read(meter, wire, line("EB1 W=6") + b"\n", 6.5)
    assert (sample.watts, sample.since) == (6.0, None)


def test_a_port_in_use(meter, wire):
    """Two readers would each get half of the lines."""
    other = wire.meter()
    with pytest.raises(Unreadable, match="another program has it open"):
        other.read()


def test_no_port(tmp_path):
    """None configured is none there; a wrong name is a fault."""
    with pytest.raises(NotHere, match="no serial meter is configured"):
        SerialMeter("").read()
    (tmp_path / "file").touch()
    with pytest.raises(Unreadable, match="file: "):
        SerialMeter(str(tmp_path / "file")).read()


def test_a_meter_that_is_asked(wire):
    """A UM25C speaks when it is spoken to: one byte, and again after a second without an answer."""
    meter = wire.meter("um25c")
    with pytest.raises(NotYet):
        meter.read()
    assert wire.heard() == b"\xf0"
    wire.say(frame()[:70])
    for wire.now in (0.3, 0.6):
        with pytest.raises(NotYet):
            meter.read()
    wire.now = 1.1
    with pytest.raises(NotYet):
        meter.read()
    assert wire.heard() == b"\xf0"
    sample = read(meter, wire, frame(), 1.3)
    assert sample.watts == 4.313 and sample.source == f"UM25C {wire.name}"
    wire.now = 1.5
    assert meter.read().at == 1.3 and wire.heard() == b"\xf0"
    meter.close()
