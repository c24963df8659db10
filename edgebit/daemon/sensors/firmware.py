"""What a Raspberry Pi's firmware says: through its mailbox /dev/vcio, or by its program vcgencmd.

The mailbox costs no process, so it comes first; who may not open it (group `video`) has vcgencmd say why.
Source: raspberrypi/firmware wiki, "Mailbox property interface"; Raspberry Pi documentation, vcgencmd.
"""

import fcntl
import os
import re
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgebit.daemon.sensors.command import Command
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.reading import Unreadable

# _IOWR(100, 0, char *): the size of a pointer is part of the number.
_PROPERTY = 3 << 30 | struct.calcsize("P") << 16 | 100 << 8
_DONE = 0x80000000
_GET_THROTTLED = 0x00030046
_GET_CLOCK_MEASURED = 0x00030047
_ARM = 3
_THROTTLED = re.compile(r"throttled=0x([0-9a-fA-F]{1,8})")
_CLOCK = re.compile(r"frequency\([0-9]+\)=([0-9]{1,12})")

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True, slots=True)
class Said:
    """A figure of the firmware."""

    value: int
    source: str
    age_s: float = 0.0


class Firmware:
    """The firmware of a Raspberry Pi, where this is one. For one thread."""

    def __init__(
        self,
        files: DeviceFiles,
        *,
        limit_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        ioctl: Ioctl = fcntl.ioctl,
    ) -> None:
        self._files = files
        self._ioctl = ioctl
        # An argument to get_throttled would clear the bits of what has occurred, for everybody. There is none.
        self._throttled = Command(files, ["vcgencmd", "get_throttled"], limit_s=limit_s, clock=clock)
        self._clock = Command(files, ["vcgencmd", "measure_clock", "arm"], limit_s=limit_s, clock=clock)

    def throttled(self) -> Said:
        """The bits of get_throttled: 0 to 3 are now, 16 to 19 have occurred. Raises Unreadable."""
        try:
            return Said(self._ask(_GET_THROTTLED, [0])[0], "/dev/vcio get_throttled")
        except Unreadable:
            return _parsed(self._throttled, _THROTTLED, 16)

    def clock_hz(self) -> Said:
        """The true clock of the ARM cores. Raises Unreadable."""
        try:
            return Said(self._ask(_GET_CLOCK_MEASURED, [_ARM, 0])[1], "/dev/vcio measure_clock arm")
        except Unreadable:
            return _parsed(self._clock, _CLOCK, 10)

    def close(self) -> None:
        """End what still runs."""
        self._throttled.close()
        self._clock.close()

    def _ask(self, tag: int, words: Sequence[int]) -> tuple[int, ...]:
        """The answer to a property tag: as many words as were sent."""
        size = 4 * len(words)
        buffer = bytearray(struct.pack(f"=5I{len(words)}II", 24 + size, 0, tag, size, 0, *words, 0))
        try:
            handle = os.open(self._files.root / "dev/vcio", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._ioctl(handle, _PROPERTY, buffer)
            finally:
                os.close(handle)
        except OSError as error:
            raise Unreadable(f"/dev/vcio: {error.strerror}") from error
        _, code, answered_tag, _, answer, *said = struct.unpack(f"=5I{len(words)}II", buffer)
        if code != _DONE or answered_tag != tag or not answer & _DONE:
            raise Unreadable("/dev/vcio: the firmware does not know this tag")
        return tuple(said[:-1])


def _parsed(command: Command, pattern: re.Pattern[str], base: int) -> Said:
    text, age_s = command.output()
    found = pattern.search(text)
    if found is None:
        raise Unreadable(f"{command.shown} says {text[:60]!r}")
    return Said(int(found[1], base), command.shown, age_s)
