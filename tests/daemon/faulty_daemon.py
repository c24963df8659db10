"""The daemon with the fake model, a disk that fails, clocks that are set, and a network thread that stalls.

`faulty_daemon.py CONFIG STATE FAULTS`: the file FAULTS is JSON that is looked at again and again, and may be absent.
`errno`: for functions of os, by name, the error they fail with. `clock`: boot id, and seconds by which the time since
the boot and the time of day are off. `stalled`: whether the network thread does nothing.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from fake_daemon import FakeModel

from edgebit.daemon import app
from edgebit.daemon.admission import job_store, journal
from edgebit.daemon.admission.boot_clock import Instant
from edgebit.daemon.config.reader import read_config
from edgebit.daemon.monitoring import progress


class Faults:
    """What is wrong now."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> dict[str, Any]:
        try:
            faults: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return faults

    def failing(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*arguments: Any) -> Any:
            number = self.now().get("errno", {}).get(name)
            if number:
                raise OSError(number, os.strerror(number))
            return act(*arguments)

        return maybe

    def clock(self) -> Instant:
        boot, up_s, wall_s = self.now().get("clock", ["boot", 0.0, 0.0])
        return Instant(boot, time.monotonic() + up_s, time.time() + wall_s)

    def stall(self, loop: Callable[..., Any]) -> Callable[..., Any]:
        def stalling(*arguments: Any, **named: Any) -> Any:
            while self.now().get("stalled"):
                time.sleep(0.02)
            return loop(*arguments, **named)

        return stalling


def main() -> int:
    app.set_up_logging("debug")
    faults = Faults(Path(sys.argv[3]))
    for name in ("pwrite", "fdatasync", "fsync", "posix_fallocate", "replace"):
        setattr(os, name, faults.failing(name, getattr(os, name)))
    journal.boot_clock = lambda: faults.clock
    job_store.REPAIR_S = 0.5
    progress.NETWORK_SILENCE_S = 3.0
    paho.Client.loop = faults.stall(paho.Client.loop)
    return app.Daemon(read_config(Path(sys.argv[1])), Path(sys.argv[2]), FakeModel).run()


if __name__ == "__main__":
    sys.exit(main())
