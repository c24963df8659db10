"""`edgebit synthesize`: a checkpoint of a known shape with random weights."""

from pathlib import Path

import click

from edgebit.cli.ending_signals import signals_as_ctrl_c
from edgebit.cli.progress_bar import progress_bar
from edgebit.synthesize import SHAPES, synthesize


@click.command()
@click.option(
    "--shape",
    required=True,
    type=click.Choice(list(SHAPES)),
    help="2b4t: that of BitNet b1.58 2B-4T; 1bitllm-3b: that of 1bitLLM's 3B, as masters in float16, 6.6 GB.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder to write.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed gives the same bytes."
)
def command(shape: str, out: Path, seed: int) -> None:
    """Write a checkpoint with random weights: for measuring speed and memory without the real model.

    \b
    edgebit synthesize --shape 2b4t --out ./synthetic-2b4t
    """
    signals_as_ctrl_c()
    with progress_bar() as progress:
        synthesize(shape, out, seed=seed, progress=progress)
    size = sum(file.stat().st_size for file in out.iterdir())
    click.echo(f"{out}: random weights in the shape {shape}, {size / 1e6:,.0f} MB. Its answers mean nothing.")
