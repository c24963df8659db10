"""edgebit merge: a LoRA adapter goes into the weights of a master checkpoint."""

import dataclasses
from pathlib import Path

import click
from rich.table import Table

from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.merge import MergeReport, merge, verdict

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_MEANING = {
    "arrives": "the merged model does nearly what the side path does",
    "in part": "the merged model does a part of what the side path does: train it on with edgebit train --from, or "
    "keep the adapter beside the model with edgebit adapter convert",
    "lost": "rounding loses the adapter in few, coarse changes: keep it beside the model with edgebit adapter convert, "
    "or train all weights with edgebit train --from",
}


@click.command()
@click.argument("checkpoint", type=_FOLDER)
@click.argument("adapter", type=_FOLDER)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder of the merged checkpoint.")
@click.option("--another-base", is_flag=True, help="Take an adapter that was trained on another form of the model.")
@click.option("--force", is_flag=True, help="Replace a folder that edgebit wrote.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(checkpoint: Path, adapter: Path, out: Path, another_base: bool, force: bool, as_json: bool) -> None:
    """Fold ADAPTER, a folder of peft's, into CHECKPOINT, a master, and say what rounding leaves of it.

    The weights become W + scale B A, and what runs are their ternary codes: a small update crosses few thresholds. So
    codes that changed, the share of the adapter's effect that is kept, and the error beside it are told for each
    projection; a side path (`edgebit adapter convert`) keeps all of it.

    \b
    edgebit merge ./master ./adapter --out merged
    edgebit merge ./master ./adapter --out merged --json
    """
    with progress_bar() as show:
        report = merge(checkpoint, adapter, out, another_base=another_base, force=force, progress=show)
    if as_json:
        told = dataclasses.asdict(report) | {"out": str(report.out), "verdict": verdict(report)}
        click.echo(printable_json(told, indent=2))
        return
    _print(report)


def _print(report: MergeReport) -> None:
    share = report.codes_changed / report.weights
    click.echo(f"{printable(str(report.out))}: adapter of rank {report.rank} merged, {report.seconds:.1f} s")
    click.echo(f"  codes    {report.codes_changed:,} of {report.weights:,} changed ({share:.2%})")
    click.echo(f"  effect   {report.kept:.0%} kept, error {report.error:.0%} of the side path's, on random inputs")
    click.echo(f"  verdict  {_MEANING[verdict(report)]}")
    table = Table("projection", "codes changed", "kept", "error", box=None, header_style="bold")
    for each in report.projections:
        changed = f"{each.codes_changed / each.weights:.2%}"
        table.add_row(each.name, changed, f"{each.kept:.0%}", f"{each.error:.0%}")
    click.echo()
    print_table(table)
