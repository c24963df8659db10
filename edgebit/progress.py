"""How a service tells what it is at."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is being done, parts done, parts in all; 0: nobody counts them


def unwatched(what: str, done: int, total: int) -> None:
    """The progress that nobody watches."""
