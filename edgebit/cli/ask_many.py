"""`edgebit ask --batch` and `--get`: answers of many questions, and of before."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgebit.cli.ctrl_c import interrupting
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.errors import DeviceError, NoAnswerError
from edgebit.mqtt_client.batch import Answer, ask_many, fetch, read_questions
from edgebit.mqtt_client.client import DeviceClient


def questions_of(text: str) -> list[dict[str, Any]]:
    """The questions of a --batch file. Raises click.BadParameter."""
    try:
        questions = read_questions(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{error}. One question a line, or one JSON object a line", param_hint="--batch"
        ) from None
    if not questions:
        raise click.BadParameter("there is no question in it: one a line", param_hint="--batch")
    return questions


def show_batch(
    client: DeviceClient,
    device: str,
    questions: Sequence[Mapping[str, Any]],
    common: Mapping[str, Any],
    *,
    timeout_s: float,
    as_json: bool,
) -> None:
    """A table at the end, or a line of JSON as each answer comes. Raises DeviceError where a question failed."""
    answers: dict[int, Answer] = {}
    waiting = Console(stderr=True).status(f"{len(questions)} questions to {device}")
    try:
        with interrupting(client), waiting:
            for answer in ask_many(client, device, questions, common, timeout_s=timeout_s):
                answers[answer.number] = answer
                waiting.update(f"{len(answers)} of {len(questions)} answered by {device}")
                if as_json:
                    click.echo(printable_json({"number": answer.number + 1, **answer.reply}))
    except KeyboardInterrupt:
        raise click.Abort from None
    finally:
        if not as_json:
            _print_table(answers)
    failed = sum(answer.error is not None for answer in answers.values())
    if failed:
        raise DeviceError(f"{failed} of {len(questions)} questions failed on {device}; their lines say why")


def show_answer(client: DeviceClient, device: str, job_id: str, *, timeout_s: float, as_json: bool) -> None:
    """The text of an answer that was given before. Raises NoAnswerError where it is still in the making."""
    try:
        with interrupting(client):
            frame = fetch(client, device, job_id, timeout_s=timeout_s)
    except KeyboardInterrupt:
        raise click.Abort from None
    if as_json or ("text" not in frame and frame.get("state") == "done"):
        click.echo(printable_json(frame))
    elif "text" in frame:
        click.echo(printable(str(frame["text"])))
    else:
        tokens, eta_ms = frame.get("completion_tokens"), frame.get("eta_ms")
        so_far = f", {tokens} tokens so far" if tokens else ""
        left = f", about {eta_ms / 1000:.0f} s to go" if isinstance(eta_ms, int | float) else ""
        raise NoAnswerError(f"{job_id} is {frame.get('state')} on {device}{so_far}{left}. Get it later")


def _print_table(answers: Mapping[int, Answer]) -> None:
    table = Table("", "id", "status", "tokens", "answer", box=None, pad_edge=False)
    for number, answer in sorted(answers.items()):
        reply, error = answer.reply, answer.error
        usage = reply.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        table.add_row(
            str(number + 1),
            _words(answer.id),
            _words(str(error.get("status")) if error is not None else "200"),
            _words("" if tokens is None else str(tokens)),
            _words(f"{error.get('code')}: {error.get('message')}" if error is not None else str(reply.get("text", ""))),
        )
    if answers:
        print_table(table)


def _words(value: str) -> Text:
    return Text(printable(value).replace("\n", "\\n"))
