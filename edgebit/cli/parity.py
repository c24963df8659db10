"""edgebit parity: a model beside the reference implementation of its checkpoint, and where they depart first."""

import dataclasses
import sys
from pathlib import Path
from typing import TextIO

import click
from rich.table import Table
from rich.text import Text

from edgebit.cli.check_rows import STYLES, add_check, check_table
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.errors import BundleError, EdgebitError
from edgebit.evaluate.parity.check import ParityOptions, Report, run_parity
from edgebit.runtime.cores import default_threads


@click.command()
@click.argument("model", metavar="BUNDLE", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--reference",
    "checkpoint",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The checkpoint's folder that BUNDLE was built from.",
)
@click.option("--text", type=click.File("r", encoding="utf-8"), help="A text to compute.  [default: a short mixed one]")
@click.option("--tokens", type=click.IntRange(2, 1024), default=64, show_default=True, help="Of the text, at most.")
@click.option(
    "--greedy", type=click.IntRange(0, 1024), default=32, show_default=True, help="Tokens that the reference adds."
)
@click.option("--threads", type=click.IntRange(1, 1024), help="Worker threads.  [default: one for each big core]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: Path, checkpoint: Path, text: TextIO | None, tokens: int, greedy: int, threads: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run BUNDLE, or a model file, beside Hugging Face transformers, and name the first part that departs.

    Needs pip install 'edgebit[parity]', and memory for the checkpoint and one layer in float32. Ends with exit code 0
    only where no check fails: tokens, embedding, every layer fed with the reference's own input, logits, greedy.

    \b
    edgebit parity chat.bundle --reference ./bitnet-b1.58-2B-4T
    """
    options = ParityOptions(
        text=_read(text) if text else None,
        n_tokens=tokens,
        n_greedy=greedy,
        threads=threads or default_threads(),
    )
    with progress_bar() as progress:
        report = run_parity(model, checkpoint, options, progress)
    if as_json:
        click.echo(printable_json(_as_dict(report), indent=2))
    else:
        _print(model, report)
    if not report.holds:
        sys.exit(BundleError.exit_code)


def _read(file: TextIO) -> str:
    try:
        text = str(file.read())
    except UnicodeDecodeError as error:
        raise EdgebitError(f"{file.name}: is no UTF-8: {error}") from error
    if not text.strip():
        raise EdgebitError(f"{file.name}: is empty: at least a few words are needed")
    return text


def _print(path: Path, report: Report) -> None:
    table = Table("layer", "close rows", "largest error", "chained: median", "largest", box=None, header_style="bold")
    for result in report.layers:
        alone, chained = result.alone, result.chained
        style = "" if alone.holds else STYLES["failed"]
        table.add_row(
            Text(str(result.layer), style=style),
            Text(f"{100 * alone.close_share:.1f} %", style=style),
            Text(f"{alone.largest:.1e}", style=style),
            f"{chained.median:.1e}",
            f"{chained.largest:.1e}",
        )
    print_table(table)
    table = check_table()
    for check in report.checks:
        add_check(table, check)
    print_table(table)
    click.echo(f"{path} beside {report.reference}, {report.n_tokens} tokens: ", nl=False)
    click.echo(f"departs first in {printable(report.departure)}" if report.departure else "they agree")


def _as_dict(report: Report) -> dict[str, object]:
    return {"holds": report.holds, **dataclasses.asdict(report)}
