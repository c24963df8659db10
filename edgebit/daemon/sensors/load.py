"""How much waits for the processor, and how long the device has been up. Source: proc(5), loadavg and uptime."""

from collections.abc import Iterator

from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.reading import Reading, Unreadable, take


class Load:
    """load_1m, load_5m and uptime."""

    every_s = 1.0

    def __init__(self, files: DeviceFiles) -> None:
        self._files = files

    def read(self) -> Iterator[Reading]:
        """Two loads, and seconds."""
        yield take("load_1m", "1", "/proc/loadavg", lambda: self._word("proc/loadavg", 0), within=(0, 1e6))
        yield take("load_5m", "1", "/proc/loadavg", lambda: self._word("proc/loadavg", 1), within=(0, 1e6))
        yield take("uptime", "s", "/proc/uptime", lambda: self._word("proc/uptime", 0), within=(0, 1e10))

    def _word(self, name: str, position: int) -> float:
        text = self._files.text(name)
        try:
            return float(text.split()[position])
        except (IndexError, ValueError) as error:
            raise Unreadable(f"/{name} says {text[:40]!r}") from error
