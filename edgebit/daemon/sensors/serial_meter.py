"""Power from a meter on a serial port, opened with pyserial, read without waiting, and opened anew when it vanishes."""

import errno
import termios
import time
from collections.abc import Callable
from typing import Any

from edgebit.daemon.sensors.meter_protocols import MeterSample, protocol_of
from edgebit.daemon.sensors.power import PowerSample
from edgebit.daemon.sensors.reading import NotHere, NotYet, Unreadable

_SILENT_S = 3.0  # then the last sample is no longer what the device draws
_OPEN_AGAIN_S = 2.0
_ASK_AGAIN_S = 1.0  # a poll that was not answered
_AT_ONCE = 65536
_ERROR = 0.02


class SerialMeter:
    """One meter. For one thread."""

    kind = "serial"
    every_s = 0.2

    def __init__(
        self,
        port: str,
        meter: str = "line",
        baud: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        open_port: Callable[[str, int], Any] | None = None,
    ) -> None:
        """`port`: "/dev/ttyUSB0", empty: there is no meter. `baud` 0: what the meter has from its maker."""
        self._name = port
        self._protocol = protocol_of(meter)
        self._baud = baud or self._protocol.baud
        self._clock = clock
        self._open_port = open_port or _open
        self._port: Any = None
        self._next_open = 0.0
        self._opened_at = 0.0
        self._why: Unreadable = NotYet(f"{port} is not open yet")
        self._asked_at: float | None = None
        self._bytes = 0  # since the last sample
        self._read_at = 0.0  # when bytes were last looked for
        self._last: PowerSample | None = None

    def read(self) -> PowerSample:
        """The mean of what came since the last call, or the last sample again while the meter may still speak.

        Raises NotHere where none is configured, Unreadable where it is gone, silent, or not understood.
        """
        if not self._name:
            raise NotHere("no serial meter is configured ([power] port)")
        now = self._clock()
        samples = self._take(now)
        before, self._read_at = self._read_at, now
        if samples:
            self._bytes = 0
            self._last = self._sample(samples, before, now)
        if self._last is None or now - self._last.at > _SILENT_S:
            raise self._silent(now)
        return self._last

    def close(self) -> None:
        """Give the port back."""
        if self._port is not None:
            port, self._port = self._port, None
            try:
                port.close()
            except OSError:  # it is unplugged
                return

    def _take(self, now: float) -> list[MeterSample]:
        try:
            if self._port is None:
                self._open_again(now)
            if self._protocol.poll and (self._asked_at is None or now - self._asked_at >= _ASK_AGAIN_S):
                self._protocol.forget()
                self._port.write(self._protocol.poll)
                self._asked_at = now
            data: bytes = self._port.read(_AT_ONCE)
        except (OSError, termios.error) as error:  # pyserial's own is an OSError
            self.close()
            self._last = None
            self._next_open = now + _OPEN_AGAIN_S
            self._why = Unreadable(f"{self._name}: {_in_words(error)}")
            raise self._why from error
        self._bytes += len(data)
        samples = self._protocol.feed(data)
        if samples:
            self._asked_at = None
        return samples

    def _open_again(self, now: float) -> None:
        if now < self._next_open:
            raise self._why
        self._next_open = now + _OPEN_AGAIN_S
        self._port = self._open_port(self._name, self._baud)
        self._protocol.forget()
        self._opened_at = self._read_at = now
        self._asked_at, self._bytes = None, 0

    def _sample(self, samples: list[MeterSample], before: float, now: float) -> PowerSample:
        several = len(samples) > 1 and now > before
        newest = samples[-1]
        raw = tuple(figure for figure in (newest.volts, newest.amperes, newest.watts) if figure is not None)
        return PowerSample(
            at=now,
            since=before if several else None,
            watts=sum(sample.watts for sample in samples) / len(samples),
            source=f"{self._protocol.name} {self._name}",
            error=_ERROR,
            raw=raw,
        )

    def _silent(self, now: float) -> Unreadable:
        since = self._last.at if self._last is not None else self._opened_at
        if now - since <= _SILENT_S:
            return NotYet(f"{self._name}: nothing has come yet")
        if self._protocol.remark:
            return Unreadable(f"{self._name}: the meter says: {self._protocol.remark}")
        if self._bytes:
            return Unreadable(
                f"{self._name}: {self._bytes} bytes came in {now - since:.0f} s and none are of a "
                f"{self._protocol.name} (another meter, or another rate than {self._baud} baud?)"
            )
        return Unreadable(f"{self._name}: silent for {now - since:.0f} s")


def _open(name: str, baud: int) -> Any:
    import serial  # only who has a meter waits for it

    try:
        port = serial.Serial(baudrate=baud, timeout=0, write_timeout=0, exclusive=True)
        port.dtr = False  # an Arduino would start anew
        port.port = name
        port.open()
    except ValueError as error:
        raise OSError(errno.EINVAL, f"cannot be set to {baud} baud") from error
    return port


def _in_words(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return "there is no such port (is the meter plugged in?)"
    if number in (errno.EACCES, errno.EPERM):
        return "the daemon may not use it (its user must be in the group dialout)"
    if number in (errno.EBUSY, errno.EAGAIN):
        return "another program has it open"
    return f"the line broke ({error})"
