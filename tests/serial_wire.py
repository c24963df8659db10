"""A serial line whose other end tests hold: a pseudo-terminal, with a real line discipline, for a real SerialMeter."""

import os
import pty
import select
import tty

from edgebit.daemon.sensors.reading import NotYet
from edgebit.daemon.sensors.serial_meter import SerialMeter


class Wire:
    """The meter's end of a pseudo-terminal whose other end stands at `name`, and the test's clock."""

    def __init__(self, name):
        self.name = name
        self.now = 0.0
        self.plug()

    def plug(self):
        self.end, self.far = pty.openpty()
        tty.setraw(self.far)
        self.name.unlink(missing_ok=True)
        self.name.symlink_to(os.ttyname(self.far))

    def unplug(self):
        """EIO for whoever reads on, ENOENT for whoever opens."""
        self.close()
        self.name.unlink()

    def say(self, data):
        os.write(self.end, data)

    def has_arrived(self):
        """Whether something that was said can be read, within a moment."""
        return bool(select.select([self.far], [], [], 5)[0])

    def heard(self):
        ready, _, _ = select.select([self.end], [], [], 5)
        return os.read(self.end, 1000) if ready else b""

    def meter(self, kind="line"):
        return SerialMeter(str(self.name), kind, clock=lambda: self.now)

    def close(self):
        for handle in {self.end, self.far} - {-1}:
            os.close(handle)
        self.end = self.far = -1


def read(meter, wire, data, at):
    """What the meter's reader says once `data` has gone over the wire. A pseudo-terminal may take a moment."""
    wire.say(data)
    wire.now = at
    for _ in range(200):
        try:
            sample = meter.read()
        except NotYet:
            continue
        if sample.at == at:
            return sample
        select.select([], [], [], 0.01)
    raise AssertionError("nothing came through")
