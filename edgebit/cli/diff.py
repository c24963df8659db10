"""edgebit diff: where two models differ first."""

import dataclasses
import sys
from contextlib import closing
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.opening import find_gguf, open_checkpoint
from edgebit.cli.checkpoint_options import checkpoint_options
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.model_diff.diff import Part, are_equal, diff_models

_DIFFERENT = 1  # the exit code, as that of diff
_SHOWN = 10  # differences of a part, without --all


@click.command()
@click.argument("first", metavar="A", type=click.Path(exists=True, path_type=Path))
@click.argument("second", metavar="B", type=click.Path(exists=True, path_type=Path))
@checkpoint_options
@click.option("--all", "show_all", is_flag=True, help=f"List every difference, not the first {_SHOWN} of each part.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(first: Path, second: Path, hints: Hints, show_all: bool, as_json: bool) -> None:
    """Compare two models: checkpoints, model files or bundles, each of any kind.

    Architecture, tokenizer, chat template, stop tokens, and every code, scale, norm and row. Ends with exit code 1
    where they differ; a name or licence that differs is shown and does not count.

    \b
    edgebit diff ./bitnet-b1.58-2B-4T chat.bundle
    edgebit diff old.ebm new.ebm --json
    """
    with (
        progress_bar() as progress,
        closing(open_checkpoint(first, hints if find_gguf(first) or not find_gguf(second) else NO_HINTS)) as a,
        closing(open_checkpoint(second, hints if find_gguf(second) else NO_HINTS)) as b,
    ):
        parts = diff_models(a, b, progress)
    equal = are_equal(parts)
    if as_json:
        told = {"equal": equal, "parts": [dataclasses.asdict(part) for part in parts]}
        click.echo(printable_json(told, indent=2))
    else:
        _print(parts, _SHOWN if not show_all else None)
        click.echo("the models are equal" if equal else "the models differ")
    if not equal:
        sys.exit(_DIFFERENT)


def _print(parts: list[Part], most: int | None) -> None:
    table = Table("part", "", "A and B", box=None, header_style="bold")
    for part in parts:
        if not part.differences:
            table.add_row(part.title, Text("equal", style="green"), printable(part.compared))
            continue
        word = "differs" if part.counts else "differs, and does not count"
        count = f"{len(part.differences)} differences" if len(part.differences) > 1 else ""
        table.add_row(part.title, Text(word, style="bold red" if part.counts else "yellow"), count)
        for difference in part.differences[:most]:
            table.add_row("", Text(printable(difference.name)), Text(printable(difference.detail)))
        if most is not None and len(part.differences) > most:
            table.add_row("", "", f"and {len(part.differences) - most} more: --all lists them")
    print_table(table)
