"""How a command shows a training, and how Ctrl-C ends it: with what was learnt saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from edgebit.cli.terminal import printable
from edgebit.progress import Progress
from edgebit.train.records import Listener, Record

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def training_watch(show: Progress) -> Iterator[Listener]:
    """A listener that shows each step, and says each evaluation.

    From the first step on, Ctrl-C, SIGTERM and SIGHUP ask the training to end; the second one ends it at once.
    """
    watch = _Watch(show)
    try:
        yield Listener(
            compiling=lambda: show("compiling", 0, 0),
            began=watch.began,
            stepped=watch.stepped,
            noted=lambda words: click.echo(printable(words), err=True),
            should_stop=lambda: watch.asked,
        )
    finally:
        watch.ended()


class _Watch:
    def __init__(self, show: Progress) -> None:
        self.asked = False
        self._show = show
        self._steps = 0
        self._handlers: dict[signal.Signals, Any] = {}

    def began(self, done: int, steps: int) -> None:
        self._steps = steps
        for each in _SIGNALS:
            if signal.getsignal(each) != signal.SIG_IGN:  # as nohup sets SIGHUP
                self._handlers[each] = signal.signal(each, self._ask)
        click.echo(f"training: step {done + 1} of {steps}", err=True)

    def stepped(self, record: Record) -> None:
        self._show(f"step {record.step} of {self._steps}, loss {record.loss:.4f}", record.step, self._steps)
        if record.held_out_loss is not None:
            found = f"held out {record.held_out_loss:.4f}, {record.held_out_accuracy:.1%} predicted"
            click.echo(f"step {record.step} of {self._steps}: loss {record.loss:.4f}, {found}", err=True)

    def ended(self) -> None:
        for each, handler in self._handlers.items():
            signal.signal(each, handler)
        self._handlers = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.ended()
