"""Ctrl-C for commands that wait for a broker."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from edgebit.mqtt_client.client import DeviceClient


@contextmanager
def interrupting(client: DeviceClient) -> Iterator[None]:
    """Ctrl-C reaches the client where it waits: raised at any place, Python may lose it in a finaliser or a callback.

    A second Ctrl-C is raised at once.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        client.interrupt()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
