"""A bar for a service that says what it is at: on standard error, and only on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edgebit.progress import Progress as Report


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Gives what is called with each step."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
