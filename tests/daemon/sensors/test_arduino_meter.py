"""The sketch that docs/ina219_meter ships, as it is, with a simulated INA219 on its I2C, read by the real SerialMeter.

Compiled for this machine with stand-ins of Arduino's libraries; and, slow, with Arduino's own core for an ATmega328P,
which a simulator runs.
"""

import subprocess
from pathlib import Path

import pytest
from serial_wire import Wire, read

from edgebit.daemon.sensors.meter_protocols import parse_line
from edgebit.daemon.sensors.reading import NotYet, Unreadable

pytest.importorskip("serial", reason="pyserial is not installed")

HERE = Path(__file__).parent / "arduino"
SKETCH = Path(__file__).parents[3] / "docs/ina219_meter/ina219_meter.ino"
CORE = Path("/usr/share/arduino/hardware/arduino/avr")  # Debian: arduino-core-avr
MCU = ("-mmcu=atmega328p", "-Os", "-ffunction-sections", "-fdata-sections")


def build(*argv):
    done = subprocess.run([str(each) for each in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.fixture(scope="module")
def on_this_machine(require_tool, tmp_path_factory):
    program = tmp_path_factory.mktemp("board") / "board"
    build(
        require_tool("g++"), "-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Wno-unused-function",
        f'-DSKETCH="{SKETCH}"', "-I", HERE, HERE / "board.cpp", "-o", program,
    )  # fmt: skip
    return [program]


@pytest.fixture(scope="module")
def on_an_atmega328p(require_tool, skip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uno")
    cxx, cc = require_tool("avr-g++"), require_tool("avr-gcc")
    if not CORE.is_dir() or not Path("/usr/include/simavr").is_dir():
        skip("arduino-core-avr and libsimavr-dev are not installed")
    options = [*MCU, "-DF_CPU=16000000L", "-DARDUINO=10807", "-DARDUINO_AVR_UNO", "-DARDUINO_ARCH_AVR", "-w"]
    folders = ("cores/arduino", "variants/standard", "libraries/Wire/src", "libraries/Wire/src/utility")
    options += [f"-I{CORE / folder}" for folder in folders]
    sources = [
        *(CORE / f"cores/arduino/{name}" for name in ("main.cpp", "Print.cpp", "HardwareSerial.cpp")),
        *(CORE / f"cores/arduino/{name}" for name in ("HardwareSerial0.cpp", "abi.cpp", "hooks.c", "wiring.c")),
        CORE / "cores/arduino/wiring_digital.c",
        CORE / "libraries/Wire/src/Wire.cpp",
        CORE / "libraries/Wire/src/utility/twi.c",
    ]
    objects = []
    for source in sources:
        objects.append(folder / f"{source.name}.o")
        language = [cxx, "-std=gnu++11", "-fno-exceptions"] if source.suffix == ".cpp" else [cc, "-std=gnu11"]
        build(*language, *options, "-c", source, "-o", objects[-1])
    strict = [option for option in options if option != "-w"] + ["-Wall", "-Wextra", "-std=gnu++11"]
    build(cxx, *strict, "-x", "c++", "-include", "Arduino.h", "-c", SKETCH, "-o", folder / "sketch.o")
    build(cc, *MCU, "-Wl,--gc-sections", folder / "sketch.o", *objects, "-lm", "-o", folder / "meter.elf")
    uno = folder / "uno"
    build(require_tool("gcc"), "-O2", "-Wall", "-Wextra", HERE / "simulated_uno.c", "-o", uno, "-lsimavr", "-lelf")
    return [uno, folder / "meter.elf"]


@pytest.fixture(params=["on_this_machine", pytest.param("on_an_atmega328p", marks=pytest.mark.slow)])
def board(request):
    """Runs the sketch on measurements of (millivolts, microvolts) or "gone"; what it sends goes to `out`, else back."""
    argv = request.getfixturevalue(request.param)

    def run(*measurements, out=subprocess.PIPE):
        lines = [each if isinstance(each, str) else "{} {}".format(*each) for each in measurements]
        done = subprocess.run(argv, input="\n".join([*lines, ""]).encode(), stdout=out, timeout=60, check=True)
        sent = done.stdout or b""
        return [line for line in sent.split(b"\n") if line and not line.startswith(b"Loaded ")]  # the simulator's own

    return run


def test_what_is_measured_is_what_is_read(board, tmp_path):
    """Volts and amperes over 0.1 ohm: 5.12 V and 84.2 mV are 4.311 W, through a serial line into power."""
    wire = Wire(tmp_path / "ttyMETER")
    meter = wire.meter()
    with pytest.raises(NotYet):
        meter.read()
    board(*[(5120, 84200)] * 6, out=wire.end)
    sample = read(meter, wire, b"", 1.0)
    assert sample.watts == pytest.approx(5.12 * 0.842, abs=1e-4) and sample.raw[:2] == (5.12, 0.842)
    meter.close()
    wire.close()


@pytest.mark.parametrize("millivolts", [0, 4, 5000, 26000])
@pytest.mark.parametrize("microvolts", [-319990, -10, 0, 10, 90, 4000, 319990])
def test_every_figure_is_within_a_step_of_the_truth(board, millivolts, microvolts):
    """To the ends of the range, either way round, where 16 bits end."""
    volts, amperes = millivolts / 1000, microvolts / 1e6 / 0.1
    lines = board(*[(millivolts, microvolts)] * 4)
    samples = [parse_line(line) for line in lines]
    assert len(samples) >= 2 and None not in samples, lines
    for sample in samples:
        assert sample.volts == pytest.approx(volts) and sample.amperes == pytest.approx(amperes, abs=1.1e-4)
        assert sample.watts == pytest.approx(volts * amperes, abs=1.1e-4)


def test_without_a_chip_it_says_so(board, tmp_path):
    """Not zeros, nor silence; the reason goes all the way."""
    wire = Wire(tmp_path / "ttyMETER")
    meter = wire.meter()
    with pytest.raises(NotYet):
        meter.read()
    board(*["gone"] * 40, out=wire.end)
    assert wire.has_arrived()
    wire.now = 0.1
    with pytest.raises(NotYet):
        meter.read()
    wire.now = 5.0
    with pytest.raises(Unreadable, match=f"{wire.name}: the meter says: no INA219 answers"):
        meter.read()
    meter.close()
    wire.close()


def test_a_chip_that_comes_back_is_measured_again(board):
    """It has lost its settings meanwhile, so they are written anew."""
    lines = board(*[(5000, 10000)] * 3, *["gone"] * 12, *[(5000, 20000)] * 60)
    assert parse_line(lines[0]).watts == 0.5 and b"# no INA219 answers" in lines
    assert parse_line(lines[-1]).watts == 1.0


def test_more_than_the_shunt_is_for(board):
    """The chip's figure stops at the end of its range; that is no reading."""
    assert board(*[(5000, 400_000)] * 4)[-1] == b"# more current than the shunt is for"
