"""A folder takes the place of another in one step, which no signal comes between."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exchange(one: Path, other: Path) -> bool:
    """Give each of two folders the other's name at once; False: the system or the disk cannot, and nothing is done."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):  # not Linux, or an old or static libc
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


@contextmanager
def ending_signals_wait() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP come when the block has ended.

    Handlers are changed, not the mask: a thread that does not block a signal would take it, and Python's handler runs.
    """
    if threading.current_thread() is not threading.main_thread():  # where Python runs no handlers
        yield
        return
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.getsignal(number) for number in _ENDING}
    handled = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in handled:
            signal.signal(number, keep)
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
