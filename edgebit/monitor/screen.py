"""The live view on a terminal: frames out, keys in."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live

from edgebit.monitor.fleet import ordered
from edgebit.monitor.keys import Choice, KeyReader, pressed
from edgebit.monitor.view import Scene, frame, rows_that_fit, shown_of

ESCAPE_S = 0.05  # what belongs to a key follows its first byte sooner


@dataclass(frozen=True, slots=True)
class Screen:
    """A terminal that shows what scene() gives, until q."""

    console: Console
    scene: Callable[[], Scene]
    looked_at: Callable[[Iterable[str]], None]  # told the devices that are in view
    refresh_s: float = 1.0

    def run(self, choice: Choice) -> None:
        """Show frames and obey keys."""
        keys = KeyReader()
        with _key_by_key() as can_read, Live(console=self.console, screen=True, auto_refresh=False) as live:
            while True:
                scene = self.scene()
                width, height = self.console.size
                live.update(frame(scene, choice, width, height), refresh=True)
                self.looked_at(device.name for device in shown_of(scene, choice, height)[0])
                for key in _pressed_keys(keys, self.refresh_s) if can_read else _no_keys(self.refresh_s):
                    names = [each.name for each in ordered(scene.devices, choice.sort, reverse=choice.reverse)]
                    chosen = pressed(choice, key, names, rows_that_fit(height))
                    if chosen is None:
                        return
                    choice = chosen


@contextlib.contextmanager
def _key_by_key() -> Iterator[bool]:
    """Keys come one by one and are not shown; gives whether there are any: standard input may be no terminal."""
    if not sys.stdin.isatty():
        yield False
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed_keys(keys: KeyReader, wait_s: float) -> list[str]:
    data = _typed(wait_s)
    names = keys.read(data)
    if data and keys.is_begun:
        names += keys.read(_typed(ESCAPE_S))
    return names


def _typed(wait_s: float) -> bytes:
    ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    if not ready:
        return b""
    data = os.read(sys.stdin.fileno(), 1024)
    if not data:  # the terminal is gone
        raise KeyboardInterrupt
    return data


def _no_keys(wait_s: float) -> list[str]:
    select.select([], [], [], wait_s)
    return []
