"""SIGTERM for commands that write large files."""

import signal
from types import FrameType


def sigterm_as_ctrl_c() -> None:
    """Let SIGTERM unwind as Ctrl-C does, so that nothing half-made stays."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
