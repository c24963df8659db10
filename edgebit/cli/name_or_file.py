"""What the Tab key offers where a name or a file may be given."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_name_or_file(names: Iterable[str]) -> Complete:
    """Those of `names` that begin so, and files; bash takes files where no name does, since they come first."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        fitting = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file"), *fitting]

    return complete
