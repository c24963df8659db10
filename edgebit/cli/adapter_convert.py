"""`edgebit adapter convert`: an adapter of peft becomes a file for the engine."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from edgebit.adapters import AdapterReport, convert_adapter
from edgebit.bundle.adapter_format import ENCODINGS, SUFFIX
from edgebit.bundle.model_format import Encoding
from edgebit.checkpoint.hints import Hints
from edgebit.cli.checkpoint_options import checkpoint_options
from edgebit.cli.out_file import OUT_FILE, check_out_file, force_option
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import printable, printable_json


@click.command()
@click.argument("folder", metavar="PEFT_FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--for", "base", metavar="MODEL", required=True, type=click.Path(exists=True, path_type=Path),
    help="What it was trained on: a model file, a bundle or a checkpoint.",
)  # fmt: skip
@click.option("--out", type=OUT_FILE, required=True, help=f"The file to write: NAME{SUFFIX}.")
@click.option(
    "--type", "encoding", type=click.Choice(list(ENCODINGS)), default="f16", show_default=True,
    help="How its numbers are held: int8 takes half the bytes, and rounds more.",
)  # fmt: skip
@click.option("--name", help="What requests call it.  [default: the file's name without its suffix]")
@checkpoint_options
@force_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    folder: Path, base: Path, out: Path, encoding: str, name: str | None, hints: Hints, force: bool, as_json: bool
) -> None:
    """Convert an adapter of peft to one small file.

    PEFT_FOLDER holds adapter_config.json and adapter_model.safetensors. The file fits every model file and bundle of
    these weights, in any layout, and no other model.

    \b
    edgebit adapter convert ./lora --for chat.bundle --out garden.adapter
    edgebit adapter convert ./lora --for ./master --out garden.adapter --type int8
    """
    check_out_file(out, force=force, example=f"NAME{SUFFIX}", inputs=[base, *folder.iterdir()])
    with progress_bar() as show:
        report = convert_adapter(folder, base, out, encoding=ENCODINGS[encoding], name=name, hints=hints, progress=show)
    if as_json:
        click.echo(printable_json(_as_dict(report), indent=2))
    else:
        _print(report)


def _print(report: AdapterReport) -> None:
    ranks = Counter(pair.rank for pair in report.adapter.pairs)
    of_rank = ", ".join(f"{count} of rank {rank}" for rank, count in sorted(ranks.items()))
    click.echo(f"{printable(str(report.out))}: {report.size:,} bytes")
    click.echo(f"  name     {report.adapter.name}")
    click.echo(f"  pairs    {of_rank}")
    click.echo(f"  rounding changes what a pair adds by at most {report.rounded:.2%}")


def _as_dict(report: AdapterReport) -> dict[str, Any]:
    return {
        "out": str(report.out),
        "name": report.adapter.name,
        "bytes": report.size,
        "base": f"{report.adapter.base:016x}",
        "pairs": len(report.adapter.pairs),
        "type": "int8" if report.adapter.pairs[0].encoding == Encoding.I8 else "f16",
        "rounding_error": report.rounded,
    }
