"""`edgebit run`: answer one prompt on this machine."""

import json
import sys
from pathlib import Path

import click

from edgebit.bundle.prompt_program import Message
from edgebit.cli.generation import (
    GenerationOptions,
    generation_options,
    open_session,
    statistics,
    statistics_line,
    stop_on_interrupt,
)
from edgebit.cli.terminal import echo_piece
from edgebit.errors import EngineError
from edgebit.runtime.generation import Answer


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("prompt")
@click.option("--raw", is_flag=True, help="Continue PROMPT as plain text, without the model's chat template.")
@click.option("--system", help="A system message put before the prompt.")
@generation_options
@click.option("--stats", is_flag=True, help="Print tokens per second and memory to standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a stream.")
def command(
    model: Path,
    prompt: str,
    raw: bool,
    system: str | None,
    generation: GenerationOptions,
    stats: bool,
    as_json: bool,
) -> None:
    """Answer PROMPT with MODEL, a bundle or model file, on this machine. A PROMPT of - is read from standard input.

    \b
    edgebit run chat.bundle "Why is the sky blue?" --stats
    """
    if raw and system is not None:
        raise click.UsageError("--system belongs to the chat template, --raw goes without it")
    if prompt == "-":
        prompt = sys.stdin.read()
    with open_session(model, generation) as session, stop_on_interrupt() as interrupted:
        if session.program is None and system is not None:
            raise EngineError(f"{model} has no chat template, which --system belongs to. Leave it out")
        if raw or session.program is None:
            ids = session.prompt_ids(prompt)
        else:
            messages = [Message("system", system)] if system is not None else []
            ids = session.chat_ids([*messages, Message("user", prompt)])
        answer, sampling = Answer(prompt_tokens=len(ids)), generation.sampling(session)
        for piece in session.generate(
            ids,
            answer,
            sampling=sampling,
            max_tokens=generation.max_tokens,
            stop=generation.stop,
            cancelled=interrupted,
        ):
            if not as_json:
                echo_piece(piece)
        figures = statistics(session, answer, sampling)
        if as_json:
            click.echo(json.dumps({"text": answer.text, "tokens": answer.tokens, **figures}, ensure_ascii=False))
        else:
            click.echo()
        if stats and not as_json:
            click.echo(statistics_line(figures), err=True)
        session.keep()
    if answer.done_reason == "cancelled":
        raise click.Abort
