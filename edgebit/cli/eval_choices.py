"""`edgebit eval choices`: multiple choice by likelihood."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click
from click.shell_completion import CompletionItem

from edgebit.checkpoint.opening import model_files
from edgebit.cli.eval_options import (
    EngineOptions,
    cost,
    end_of_part,
    engine_options,
    json_option,
    model_argument,
    speed_line,
    watched,
)
from edgebit.cli.json_lines_file import check_lines_file, json_lines
from edgebit.cli.out_file import OUT_FILE, force_option, named_files
from edgebit.evaluate.choices import METRICS, Answered, measure_choices
from edgebit.evaluate.model_opening import open_sound_model
from edgebit.evaluate.questions import read_questions, with_shots


class Metrics(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic in some versions of click only
    """Names of metrics with commas between them, as a tuple without repetitions."""

    name = "NAME,NAME,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """`value` as names; a usage error where one is unknown."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(value.split(",")))
        for name in names:
            if name not in METRICS:
                self.fail(f"there is no metric {name!r}: give some of {', '.join(METRICS)}", param, ctx)
        return names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The metrics that go on what stands after the last comma."""
        before, comma, begun = incomplete.rpartition(",")
        return [CompletionItem(before + comma + name) for name in METRICS if name.startswith(begun)]


@click.command(short_help="How often the right answer is the likeliest.")
@model_argument
@click.option("--data", required=True, type=click.File("rb"), help="The questions, a JSON object a line.")
@click.option("--metric", "metrics", type=Metrics(), default="acc,acc_norm", show_default=True,
              help="What choices are judged by: log-likelihood, that a character, or a byte (acc_bytes).")  # fmt: skip
@click.option("--shots", type=click.IntRange(0), default=0, show_default=True, help="Answered examples before each.")
@click.option(
    "--shots-from", type=click.File("rb"), help="Where they are taken from, the first ones.  [default: --data]"
)
@click.option("--limit", type=click.IntRange(1), help="Ask so many questions only.")
@click.option("--per-question", type=OUT_FILE, help="Also write each question's numbers, a JSON object a line.")
@engine_options
@force_option
@json_option
def command(
    path: Path,
    data: BinaryIO,
    metrics: tuple[str, ...],
    shots: int,
    shots_from: BinaryIO | None,
    limit: int | None,
    per_question: Path | None,
    opened: EngineOptions,
    force: bool,
    as_json: bool,
) -> None:
    """Have BUNDLE, a bundle or model file, choose by likelihood among the answers to questions.

    Questions are in the form of ARC (question, choices, answerKey), HellaSwag (ctx, endings, label), or plain (query,
    choices, gold). Texts are made and tokenized as lm-evaluation-harness does, so figures can be compared.

    \b
    edgebit eval choices chat.bundle --data arc_easy.jsonl
    edgebit eval choices chat.bundle --data hellaswag.jsonl --shots 10 --shots-from hellaswag_train.jsonl
    """
    check_lines_file(
        per_question, option="--per-question", force=force, inputs=[*model_files(path), *named_files(data, shots_from)]
    )
    questions = read_questions(data, data.name)
    examples = read_questions(shots_from, shots_from.name) if shots_from is not None else questions
    asked = with_shots(questions, examples, shots)[:limit]
    with (
        open_sound_model(path) as model,
        _question_lines(per_question) as each,
        watched("questions", metrics[0]) as report,
    ):
        result = measure_choices(
            model, asked, threads=opened.threads, kv=opened.kv, metrics=metrics, report=report, each=each
        )
    costs = cost(result.computed_tokens, result.seconds, result.isa, opened)
    figures = {"data": data.name, "shots": shots, **asdict(result), **costs}
    click.echo(json.dumps(figures) if as_json else _table(figures, len(asked)))
    end_of_part(result.complete, result.answered, len(asked), "questions")


def _table(figures: dict[str, Any], total: int) -> str:
    lines = []
    for metric, accuracy in figures["accuracy"].items():
        error = figures["error"][metric]
        lines.append(f"{metric:<11} {accuracy:.4f}" + (f" ± {error:.4f}" if error is not None else ""))
    lines.append(f"questions   {figures['answered']} of {total} in {figures['data']}, {figures['shots']} shots")
    if figures["shortened"]:
        lines.append(
            f"shortened   {figures['shortened']} contexts lost their beginning: longer than the model's context"
        )
    lines.append(speed_line(figures, "speed       ") + f" ({figures['read_tokens']} without sharing)")
    return "\n".join(lines)


@contextlib.contextmanager
def _question_lines(path: Path | None) -> Iterator[Callable[[Answered], None]]:
    with json_lines(path) as write:
        yield lambda answered: write(asdict(answered))
