"""What serial meters send: whole samples come out, whatever comes in."""

import random

import pytest
from meter_messages import frame, line

from edgebit.daemon.sensors.meter_protocols import LineProtocol, MeterSample, UmProtocol, parse_line


@pytest.mark.parametrize(
    ("content", "sample"),
    [
        ("EB1 V=5.123 A=0.842 W=4.31", MeterSample(4.31, 5.123, 0.842)),
        ("EB1 V=5 A=0.5", MeterSample(2.5, 5.0, 0.5)),
        ("EB1 W=4.31", MeterSample(4.31)),
        ("EB1 T=31.5 A=-0.842 V=5.123", MeterSample(5.123 * -0.842, 5.123, -0.842)),
    ],
)
def test_a_line(content, sample):
    """Fields in any order; unknown ones are skipped; power is computed where it is not said."""
    assert parse_line(line(content)) == sample
    assert parse_line(line(content) + b"\r") == sample


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"EB1 V=5.123 A=0.842 W=4.31",
        b"EB1 V=5.123 A=0.842 W=4.31*00",
        line("EB2 W=4.31"),
        line("EB1"),
        line("EB1 V=5.123"),
        line("EB1 W=nan"),
        line("EB1 W=1e999"),
        line("EB1 W=--1"),
        line("EB1 V=5 A=0.8 W=9"),
        line("EB1 V=-5 A=0.8"),
        line("EB1 V=5 A=800"),
        line("EB1 " + " ".join(f"X{n}=1" for n in range(17))),
        b" " + line("EB1 W=4.31"),
        "EB1 W=٣*00".encode(),
    ],
)
def test_what_is_no_line(raw):
    """A wrong sum, another version, what cannot be, and figures that contradict each other."""
    assert parse_line(raw) is None


@pytest.mark.parametrize("seed", range(20))
def test_lines_come_through_in_any_pieces(seed):
    """Cut anywhere, with garbage between them: each good line once, in order, and nothing else."""
    chance = random.Random(seed)
    stream, sent = b"", []
    for number in range(40):
        sent.append(round(1 + number / 10, 1))
        stream += line(f"EB1 W={sent[-1]}") + chance.choice([b"\n", b"\r\n"])
        if chance.random() < 0.5:
            stream += bytes(chance.randrange(256) for _ in range(chance.randrange(300))) + b"\n"
    protocol, got = LineProtocol(), []
    while stream:
        size = chance.randrange(1, 90)
        got += [sample.watts for sample in protocol.feed(stream[:size])]
        stream = stream[size:]
    assert got == sent, seed


def test_a_stream_without_lines_takes_no_memory():
    """A meter at another rate sends bytes for ever."""
    protocol = LineProtocol()
    for _ in range(1000):
        assert protocol.feed(b"\xf0" * 1000) == []
    assert len(protocol._rest) <= 512


@pytest.mark.parametrize(
    ("raw", "remark"),
    [
        (b"# no INA219 answers\n", "no INA219 answers"),
        (b"# too late\r\n", "too late"),
        (b"# \xf0\x9f\n", ""),
        (b"# \x1b[2J\n", ""),
        (b"# " + b"x" * 79 + b"\n", ""),
        (b"#\n", ""),
        (b"# half a line", ""),
        (b"# no INA219 answers\n" + line("EB1 W=1") + b"\n", ""),
    ],
)
def test_a_remark(raw, remark):
    """Printable and short, or none: it goes into what the daemon publishes."""
    protocol = LineProtocol()
    protocol.feed(raw)
    assert protocol.remark == remark


def test_a_um25c():
    """Volts in thousandths and amperes in ten-thousandths; the other two models are ten times coarser."""
    assert UmProtocol("um25c").feed(frame()) == [MeterSample(4.313, 5.123, 0.842)]
    assert UmProtocol("um24c").feed(frame(512, 842, 4311)) == [MeterSample(4.311, 5.12, 0.842)]


def test_the_wrong_model_is_noticed():
    """Its figures do not agree: ten times the volts and ten times the amperes are not those watts."""
    assert UmProtocol("um24c").feed(frame()) == []


@pytest.mark.parametrize("ahead", [1, 64, 129])
def test_a_reply_out_of_step(ahead):
    """Bytes that were left over before it are passed over."""
    protocol = UmProtocol("um25c")
    assert protocol.feed(b"\xff" * ahead + frame()[:100]) == []
    assert protocol.feed(frame()[100:]) == [MeterSample(4.313, 5.123, 0.842)]
    assert protocol.feed(frame(amperes=1000, milliwatts=512)) == [MeterSample(0.512, 5.123, 0.1)]


def test_zeros_are_no_reply():
    """0 C is not 0 F; a line held low is not a device that draws nothing."""
    assert UmProtocol("um25c").feed(bytes(1300)) == []
