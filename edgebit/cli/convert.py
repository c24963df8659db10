"""edgebit convert: a checkpoint becomes a model file."""

import dataclasses
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import click

from edgebit.bundle.part_file import check_place
from edgebit.checkpoint.hints import Hints
from edgebit.checkpoint.model_file_checkpoint import open_model_file
from edgebit.checkpoint.opening import model_files, open_checkpoint, open_float_model
from edgebit.checks import Check
from edgebit.cli.check_rows import add_check, check_table
from edgebit.cli.checkpoint_options import checkpoint_options
from edgebit.cli.conversion_options import embedding_option, template_option
from edgebit.cli.ending_signals import signals_as_ctrl_c
from edgebit.cli.out_file import OUT_FILE, force_option
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.convert import ConvertReport, convert
from edgebit.errors import BundleError, OutputError
from edgebit.model_checks.conversion import check_conversion
from edgebit.progress import Progress


@click.command()
@click.argument("checkpoint", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=OUT_FILE, help="The model file.  [default: MODEL.ebm, here]")
@click.option(
    "--layout",
    type=click.Choice(["t2", "t1"]),
    default="t2",
    show_default=True,
    help="Of ternary weights: t2 takes the fewest cycles, t1 the fewest bytes.",
)
@embedding_option
@template_option
@click.option("--from-float", is_flag=True, help="Round an ordinary model as it is: loses most of its quality.")
@checkpoint_options
@click.option("--no-probes", is_flag=True, help="Leave golden probes out: no device can then prove itself.")
@click.option("--all-checks", is_flag=True, help="Then read it back and compare all of it with MODEL.")
@force_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    checkpoint: Path,
    out: Path | None,
    layout: Literal["t2", "t1"],
    embedding: Literal["exact", "int8"],
    template: str | None,
    from_float: bool,
    hints: Hints,
    no_probes: bool,
    all_checks: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Convert MODEL to a model file, which `edgebit build`, `run` and `inspect` take.

    With --all-checks it ends with exit code 3 where a check failed; the file stays, to be looked at. Where it cannot be
    written, or another is there, that is exit code 19.

    \b
    edgebit convert ./bitnet-b1.58-2B-4T --out 2b4t.ebm --all-checks
    edgebit convert ./base-model --template chatml
    edgebit convert ./llama --from-float --out rounded.ebm
    """
    signals_as_ctrl_c()
    out = out or Path(f"{checkpoint.resolve().name if checkpoint.is_dir() else checkpoint.stem}.ebm")
    inputs = [*model_files(checkpoint, hints), *([Path(template)] if template is not None else [])]
    check_place(out, OutputError, force=force, example="NAME.ebm", inputs=inputs)
    with progress_bar() as show:
        report = convert(
            checkpoint,
            out,
            layout=layout,
            embedding=embedding,
            template=template,
            from_float=from_float,
            hints=hints,
            probes=not no_probes,
            progress=show,
        )
        checks = _check(checkpoint, hints, out, show, from_float=from_float) if all_checks else []
    if as_json:
        click.echo(printable_json(_as_dict(report, checks), indent=2))
    else:
        _print(report, checks)
    if any(check.status == "failed" for check in checks):
        sys.exit(BundleError.exit_code)


def _check(checkpoint: Path, hints: Hints, out: Path, show: Progress, *, from_float: bool) -> list[Check]:
    opened = open_float_model(checkpoint, hints) if from_float else open_checkpoint(checkpoint, hints)
    with closing(opened) as source, closing(open_model_file(out)) as model:
        return check_conversion(out, source, model, show)


def _print(report: ConvertReport, checks: list[Check]) -> None:
    click.echo(f"{report.out}: {report.size / (1 << 20):.1f} MiB, {report.seconds:.1f} s")
    click.echo(f"  model     {printable(report.name)} ({report.family}), {report.parameters / 1e6:.1f} M weights")
    click.echo(f"  licence   {printable(report.licence or 'not stated by the checkpoint')}")
    click.echo(f"  tokenizer {'inside' if report.has_tokenizer else 'none'}")
    click.echo(f"  chat      {'prompt program inside' if report.has_chat_template else 'none: prompts are plain text'}")
    click.echo(f"  probes    {report.n_probes}")
    for note in report.notes:
        click.echo(f"  note      {printable(note)}")
    if not checks:
        return
    table = check_table()
    for check in checks:
        add_check(table, check)
    click.echo()
    print_table(table)


def _as_dict(report: ConvertReport, checks: list[Check]) -> dict[str, Any]:
    values = dataclasses.asdict(report)
    return {
        **values,
        "out": str(report.out),
        "seconds": round(report.seconds, 3),
        "ok": not any(check.status == "failed" for check in checks),
        "checks": [dataclasses.asdict(check) for check in checks],
    }
