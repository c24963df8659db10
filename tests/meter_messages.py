"""Messages of serial meters, as tests send them."""

import struct

from edgebit.daemon.sensors.meter_protocols import checksum


def line(content: str) -> bytes:
    """Of our own protocol, with its sum and without an end."""
    return f"{content}*{checksum(content.encode()):02X}".encode()


def frame(volts=5123, amperes=8420, milliwatts=4313, celsius=25, fahrenheit=77) -> bytes:
    """A UM25C's reply."""
    return struct.pack(">HHHIHH", 0x0963, volts, amperes, milliwatts, celsius, fahrenheit).ljust(130, b"\0")
