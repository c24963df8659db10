"""Signals that end a program, for commands that write large files."""

import signal
from types import FrameType


def signals_as_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that nothing half-made stays.

    SIGHUP comes when a terminal or an ssh session goes away; where it is ignored, as nohup does, it stays so.
    """
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
