"""edgebit merge: a LoRA adapter goes into the weights of a master checkpoint."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.merge import MergeReport, merge, read_inputs, verdict
from edgebit.progress import Progress
from edgebit.train.requirements import require_packages

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_HeldOut = dict[str, dict[str, Any]]  # by the form of the model
_FORMS = {"master": "master alone", "beside": "adapter beside it", "merged": "merged"}
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
@click.option("--eval", "evaluate_on", multiple=True, type=click.Path(exists=True, path_type=Path),
              help="Data that tell what is left: needs edgebit[train].")  # fmt: skip
@click.option("--another-base", is_flag=True, help="Take an adapter that was trained on another form of the model.")
@click.option("--force", is_flag=True, help="Replace a folder that edgebit wrote.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    checkpoint: Path,
    adapter: Path,
    out: Path,
    evaluate_on: tuple[Path, ...],
    another_base: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Fold ADAPTER, a folder of peft's, into CHECKPOINT, a master, and say what rounding leaves of it.

    The weights become W + scale B A, and what runs are their ternary codes: a small update crosses few thresholds. So
    codes that changed, the share of the adapter's effect that is kept, and the error beside it are told for each
    projection, of random inputs; a side path (`edgebit adapter convert`) keeps all of it. With --eval the loss on data
    is told too: of the master alone, with the adapter beside it, and merged.

    \b
    edgebit merge ./master ./adapter --out merged
    edgebit merge ./master ./adapter --out merged --eval held-out.jsonl
    """
    if evaluate_on:
        require_packages()
    with progress_bar() as show:
        judge: Callable[[], _HeldOut] = dict
        if evaluate_on:
            # What merge() would refuse is refused before minutes of evaluating.
            read_inputs(checkpoint, adapter, out, another_base=another_base, force=force)
            judge = _judge(checkpoint, adapter, out, evaluate_on, show)
        report = merge(checkpoint, adapter, out, another_base=another_base, force=force, progress=show)
        held_out = judge()
    if as_json:
        told = dataclasses.asdict(report) | {
            "out": str(report.out),
            "verdict": verdict(report),
            "held_out": held_out or None,
        }
        click.echo(printable_json(told, indent=2))
        return
    _print(report, held_out)


def _judge(master: Path, adapter: Path, out: Path, paths: Sequence[Path], show: Progress) -> Callable[[], _HeldOut]:
    """Evaluate what there is before the merge, so that faults in data come first; gives what evaluates the rest."""
    from edgebit.train.lora.merge_evaluation import evaluate_beside, evaluate_merged, rows_of

    rows = rows_of(master, paths, show)
    show("evaluating", 0, 0)
    alone, beside = evaluate_beside(master, adapter, rows)

    def rest() -> _HeldOut:
        show("evaluating", 0, 0)
        found = {"master": alone, "beside": beside, "merged": evaluate_merged(out, rows)}
        return {name: dataclasses.asdict(each) for name, each in found.items()}

    return rest


def _print(report: MergeReport, held_out: _HeldOut) -> None:
    share = report.codes_changed / report.weights
    click.echo(f"{printable(str(report.out))}: adapter of rank {report.rank} merged, {report.seconds:.1f} s")
    click.echo(f"  codes    {report.codes_changed:,} of {report.weights:,} changed ({share:.2%})")
    click.echo(f"  effect   {report.kept:.0%} kept, error {report.error:.0%} of the side path's, on random inputs")
    if held_out:
        losses = ", ".join(f"{_FORMS[name]} {found['loss']:.4f}" for name, found in held_out.items())
        click.echo(f"  loss     {losses}, of {held_out['merged']['tokens']:,} tokens")
    click.echo(f"  verdict  {_MEANING[verdict(report)]}")
    table = Table("projection", "codes changed", "kept", "error", box=None, header_style="bold")
    for each in report.projections:
        changed = f"{each.codes_changed / each.weights:.2%}"
        table.add_row(each.name, changed, f"{each.kept:.0%}", f"{each.error:.0%}")
    click.echo()
    print_table(table)
