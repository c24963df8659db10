"""What serial meters send: our own line protocol (docs/sensors.md), and the frames of RDTech's UM24C, UM25C and UM34C.

Source for the frames: rdserialtool's description of them.
"""

import math
import re
import struct
from dataclasses import dataclass

_LINE = re.compile(rb"(EB1(?: [A-Za-z][A-Za-z0-9_]{0,15}=[-+0-9.eE]{1,24}){1,16})\*([0-9A-Fa-f]{2})\r?")
_REMARK = re.compile(rb"# ([ -~]{1,78})\r?")
_LINE_MAX = 512  # bytes without a line's end: what came is no line
_FRAME_BYTES = 130
_MOST_V, _MOST_A = 60.0, 100.0
_ROUNDING = 0.05  # watts that W and V * A may differ by, beside 5 %


@dataclass(frozen=True, slots=True)
class MeterSample:
    """One sample of a meter."""

    watts: float
    volts: float | None = None
    amperes: float | None = None


class LineProtocol:
    """Ours, as an Arduino with an INA219 speaks it."""

    name = "line meter"
    poll = b""
    baud = 115_200

    def __init__(self) -> None:
        self._rest = b""
        self.remark = ""  # why the meter has no sample, in its own words

    def feed(self, data: bytes) -> list[MeterSample]:
        """Samples of the lines that have ended."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_MAX:
            self._rest = self._rest[-_LINE_MAX:]
        samples = []
        for line in lines:
            if (sample := parse_line(line)) is not None:
                samples.append(sample)
                self.remark = ""
            elif remark := _REMARK.fullmatch(line):
                self.remark = remark[1].decode("ascii")
        return samples

    def forget(self) -> None:
        """Bytes of a line that will not be finished."""
        self._rest, self.remark = b"", ""


def parse_line(line: bytes) -> MeterSample | None:
    """None for what is no line of ours, has another sum, or says what cannot be."""
    found = _LINE.fullmatch(line)
    if found is None or checksum(found[1]) != int(found[2], 16):
        return None
    figures: dict[str, float] = {}
    for field in found[1].decode("ascii").split(" ")[1:]:
        key, _, text = field.partition("=")
        try:
            figures[key] = float(text)
        except ValueError:
            return None
    volts, amperes, watts = figures.get("V"), figures.get("A"), figures.get("W")
    if watts is None and volts is not None and amperes is not None:
        watts = volts * amperes
    return None if watts is None else _plausible(watts, volts, amperes)


def checksum(content: bytes) -> int:
    """All bytes, XORed."""
    total = 0
    for byte in content:
        total ^= byte
    return total


class UmProtocol:
    """RDTech UM24C, UM25C, UM34C over Bluetooth's serial profile: asked with one byte, they send 130."""

    poll = b"\xf0"
    baud = 9600
    remark = ""

    def __init__(self, model: str) -> None:
        self.name = model.upper()
        self._finer = 10 if model == "um25c" else 1
        self._rest = b""

    def feed(self, data: bytes) -> list[MeterSample]:
        """A reply is as long as it is and holds no sum, so it counts only where its figures agree."""
        self._rest += data
        samples = []
        while len(self._rest) >= _FRAME_BYTES:
            sample = self._parse(self._rest[:_FRAME_BYTES])
            if sample is None:
                self._rest = self._rest[1:]  # out of step: look for where they agree
            else:
                samples.append(sample)
                self._rest = self._rest[_FRAME_BYTES:]
        return samples

    def forget(self) -> None:
        """A reply that stayed away half will not be finished."""
        self._rest = b""

    def _parse(self, frame: bytes) -> MeterSample | None:
        volts, amperes, watts, celsius, fahrenheit = struct.unpack_from(">2xHHIHH", frame)
        if abs(celsius * 1.8 + 32 - fahrenheit) > 2:  # both are of one sensor
            return None
        return _plausible(watts / 1000, volts / (100 * self._finer), amperes / (1000 * self._finer))


def protocol_of(meter: str) -> "LineProtocol | UmProtocol":
    """By its name in [power] meter."""
    return LineProtocol() if meter == "line" else UmProtocol(meter)


def _plausible(watts: float, volts: float | None, amperes: float | None) -> MeterSample | None:
    if not math.isfinite(watts):
        return None
    if volts is not None and not 0 <= volts <= _MOST_V:
        return None
    if amperes is not None and not abs(amperes) <= _MOST_A:
        return None
    if volts is not None and amperes is not None:
        product = volts * amperes
        if abs(abs(watts) - abs(product)) > 0.05 * abs(product) + _ROUNDING:
            return None
    return MeterSample(watts, volts, amperes)
