"""Power of a Raspberry Pi 5, estimated from what its power chip (PMIC) says of its rails.

The chip sees twelve rails, not what comes in at the plug: its own losses and what hangs on the 5 V line (USB) are
missing. A line that was fitted to a USB meter makes up for the losses; two points of one's own meter fit better. The
numbers in brackets of a rail's current and voltage differ, so rails are paired by name.
Source: Raspberry Pi documentation, vcgencmd pmic_read_adc; the fit is a published one, made on one board. Another
one, 1.1451 * sum + 0.5879, is within 0.5 % of it from 4 to 10 W.
"""

import re
import time
from collections.abc import Callable

from edgebit.daemon.sensors.command import Command
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.power import PowerSample
from edgebit.daemon.sensors.reading import NotHere, Unreadable

PUBLISHED = (1.1327, 0.6444)  # watts at the plug = slope * sum of the rails + offset
RAILS = (
    "3V7_WL_SW",
    "3V3_SYS",
    "1V8_SYS",
    "DDR_VDD2",
    "DDR_VDDQ",
    "1V1_SYS",
    "0V8_SW",
    "0V8_AON",
    "VDD_CORE",
    "3V3_DAC",
    "3V3_ADC",
    "HDMI",
)
_LINE = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\([0-9]+\)=([0-9]{1,4}\.[0-9]{1,12})([AV])\s*$", re.MULTILINE)
_OTHER_FIRMWARE = "not registered"  # error=1 error_msg="Command not registered": a Pi without this chip
_NOT_HERE = "no Raspberry Pi 5: vcgencmd knows no pmic_read_adc"


class PmicPower:
    """A sample a second at most: one costs the firmware about 23 ms."""

    kind = "pmic"
    every_s = 1.0

    def __init__(
        self,
        files: DeviceFiles,
        *,
        calibrated: bool = False,
        limit_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`calibrated`: give the bare sum of the rails, which the caller corrects."""
        self._calibrated = calibrated
        self._clock = clock
        self._command = Command(files, ["vcgencmd", "pmic_read_adc"], limit_s=limit_s, clock=clock)
        self._last: PowerSample | None = None
        self._next = 0.0
        self._elsewhere = False

    def read(self) -> PowerSample:
        """Raises NotHere where there is no such chip, Unreadable."""
        now = self._clock()
        if self._elsewhere:
            raise NotHere(_NOT_HERE)
        if self._last is not None and now < self._next:
            return self._last
        text, age_s = self._output()
        total = sum(volts * amperes for volts, amperes in parse_rails(text).values())
        slope, offset_w = (1.0, 0.0) if self._calibrated else PUBLISHED
        self._last = PowerSample(
            at=now - age_s,
            watts=slope * total + offset_w,
            source="pmic_sum" if self._calibrated else f"pmic_sum_fit {slope} * sum + {offset_w}",
            measured=False,
        )
        self._next = now - age_s + self.every_s
        return self._last

    def _output(self) -> tuple[str, float]:
        try:
            text, age_s = self._command.output()
        except Unreadable as why:
            self._elsewhere = _OTHER_FIRMWARE in str(why)
            if self._elsewhere:
                raise NotHere(_NOT_HERE) from why
            raise
        if _OTHER_FIRMWARE in text:
            self._elsewhere = True
            raise NotHere(_NOT_HERE)
        return text, age_s

    def close(self) -> None:
        """End a program that still runs."""
        self._command.close()


def parse_rails(text: str) -> dict[str, tuple[float, float]]:
    """Volts and amperes of each rail. Raises Unreadable where one is missing, for a sum without it is too small."""
    figures = {(rail, kind): float(figure) for rail, kind, figure, unit in _LINE.findall(text) if kind == unit}
    missing = [rail for rail in RAILS if (rail, "A") not in figures or (rail, "V") not in figures]
    if missing:
        raise Unreadable(f"vcgencmd pmic_read_adc lacks {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}")
    return {rail: (figures[rail, "V"], figures[rail, "A"]) for rail in RAILS}
