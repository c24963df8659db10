"""`edgebit run`: answer one prompt on this machine."""

import contextlib
import json
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from edgebit.cli.generation import (
    GenerationOptions,
    generation_options,
    statistics_line,
    stop_on_interrupt,
)
from edgebit.cli.terminal import echo_piece, printable
from edgebit.engines.choice import ENGINES, choose_engine, open_engine
from edgebit.engines.figures import answer_figures
from edgebit.engines.question import question_ids
from edgebit.runtime.generation import Answer

# Options of one engine alone: which one's.
_OWNERS = {
    "kv": "native",
    "speculate": "native",
    "prefix_cache": "native",
    "adapter": "native",
    "schema": "native",
    "library": "onnx",
}


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("prompt")
@click.option("--raw", is_flag=True, help="Continue PROMPT as plain text, without the model's chat template.")
@click.option("--system", help="A system message put before the prompt.")
@generation_options
@click.option(
    "--engine",
    type=click.Choice(["auto", *ENGINES]),
    default="auto",
    show_default=True,
    help="What runs MODEL: auto takes native for bundles and model files, onnx for folders of `edgebit export onnx`, "
    "transformers for Hugging Face folders, if it is installed.",
)
@click.option(
    "--library",
    metavar="FILE",
    help="onnx: the library of operators to take, or none.  [default: $EDGEBIT_ORT_LIBRARY, then the folder's own]",
)
@click.option("--stats", is_flag=True, help="Print tokens per second and memory to standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a stream.")
def command(
    model: Path,
    prompt: str,
    raw: bool,
    system: str | None,
    generation: GenerationOptions,
    engine: str,
    library: str | None,
    stats: bool,
    as_json: bool,
) -> None:
    """Answer PROMPT with MODEL on this machine: a bundle or model file, a folder of `edgebit export onnx`, or a Hugging
    Face folder. A PROMPT of - is read from standard input.

    \b
    edgebit run chat.bundle "Why is the sky blue?" --stats
    edgebit run chat.bundle "Turn the lamp on" --schema model
    edgebit run ./chat-onnx "Why is the sky blue?" --json
    """
    if raw and system is not None:
        raise click.UsageError("--system belongs to the chat template, --raw goes without it")
    if prompt == "-":
        prompt = sys.stdin.read()
    name = choose_engine(model, engine)
    _refuse_foreign_options(name)
    with (
        contextlib.closing(open_engine(model, generation.open_options(library), name)) as opened,
        stop_on_interrupt() as interrupted,
    ):
        for note in opened.notes:
            click.secho(printable(note), fg="yellow", err=True)
        ids = question_ids(opened, model, prompt, system, raw=raw)
        answer, sampling = Answer(prompt_tokens=len(ids)), generation.sampling(opened)
        for piece in opened.generate(
            ids,
            answer,
            sampling=sampling,
            max_tokens=generation.max_tokens,
            stop=generation.stop,
            cancelled=interrupted,
        ):
            if not as_json:
                echo_piece(piece)
        figures = answer_figures(opened, answer, sampling)
        if as_json:
            click.echo(json.dumps({"text": answer.text, "tokens": answer.tokens, **figures}, ensure_ascii=False))
        else:
            click.echo()
        if stats and not as_json:
            click.echo(statistics_line(figures), err=True)
        opened.keep()
    if answer.done_reason == "cancelled":
        raise click.Abort


def _refuse_foreign_options(engine: str) -> None:
    """Raise UsageError where an option was given that belongs to another engine."""
    context = click.get_current_context()
    for option, owner in _OWNERS.items():
        given = context.get_parameter_source(option) is ParameterSource.COMMANDLINE
        if given and engine != owner:
            raise click.UsageError(
                f"--{option.replace('_', '-')} belongs to the engine {owner}, and {engine} runs this. Leave it out"
                + (", or convert the model: edgebit convert" if owner == "native" and engine == "transformers" else "")
            )
