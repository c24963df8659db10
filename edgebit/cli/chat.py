"""`edgebit chat`: a conversation on this machine."""

import contextlib
import os
import sys
from pathlib import Path

import click

from edgebit.bundle.prompt_program import Message
from edgebit.cli.generation import (
    GenerationOptions,
    generation_options,
    statistics_line,
    stop_on_interrupt,
)
from edgebit.cli.terminal import echo_piece, printable
from edgebit.engines.figures import answer_figures
from edgebit.engines.native_engine import open_engine
from edgebit.errors import EngineError
from edgebit.runtime.eval_errors import ContextFullError
from edgebit.runtime.generation import Answer

COMMANDS = "/new begins another conversation, /bye ends it"


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--system", help="A system message put before the conversation.")
@generation_options
@click.option("--stats", is_flag=True, help="Print tokens per second and memory after each answer.")
def command(model: Path, system: str | None, generation: GenerationOptions, stats: bool) -> None:
    """Talk with MODEL, a bundle or model file, on this machine.

    Ctrl-C stops an answer, Ctrl-D or /bye ends the conversation, /new begins another.

    \b
    edgebit chat chat.bundle --system "Answer in one sentence."
    """
    with contextlib.closing(open_engine(model, generation.open_options())) as engine:
        if not engine.has_chat_template:
            raise EngineError(f"{model} has no chat template: it is a base model. Use edgebit run --raw")
        beginning = [Message("system", system)] if system is not None else []
        sampling = generation.sampling(engine)
        messages = list(beginning)
        unanswered = 0
        if sys.stdin.isatty():
            click.echo(f"{COMMANDS}; Ctrl-C stops an answer.", err=True)
        while (said := _read_line()) is not None:
            if said == "/bye":
                break
            if said == "/new":
                messages = list(beginning)
                continue
            if said.startswith("/"):
                click.echo(f"There is no command {printable(said.split()[0])}. {COMMANDS}.", err=True)
                continue
            if not said:
                continue
            messages.append(Message("user", said))
            ids = engine.chat_ids(messages)
            answer = Answer(prompt_tokens=len(ids))
            try:
                with stop_on_interrupt() as interrupted:
                    for piece in engine.generate(
                        ids,
                        answer,
                        sampling=sampling,
                        max_tokens=generation.max_tokens,
                        stop=generation.stop,
                        cancelled=interrupted,
                    ):
                        echo_piece(piece)
            except ContextFullError as error:
                messages.pop()
                unanswered += 1
                click.secho(f"{error}, or begin a new conversation with /new", fg="yellow", err=True)
                continue
            click.echo()
            messages.append(Message("assistant", answer.text))
            if stats:
                click.secho(statistics_line(answer_figures(engine, answer, sampling)), dim=True, err=True)
            engine.keep()
    if unanswered and not sys.stdin.isatty():  # a script reads the exit code alone
        raise EngineError(f"{unanswered} of the messages got no answer, for the reason above")


def _read_line() -> str | None:
    """What the user said, stripped; None at the end of input. A prompt is for people: it comes on a terminal only."""
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    prompt = "> " if os.environ.get("NO_COLOR") else click.style("> ", fg="green", bold=True)
    try:
        return input(prompt if on_terminal else "").strip()
    except EOFError:
        if on_terminal:
            click.echo()
        return None
