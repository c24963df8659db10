"""`edgebit distill`: an ordinary float model is trained towards ternary."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import click

from edgebit.checkpoint.opening import open_float_model
from edgebit.cli.data_options import data_options
from edgebit.cli.data_summary import echo_dry_run
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import printable, printable_json
from edgebit.cli.training_options import SCHEMA_TAKEN_OVER, check_training_options, settings_of, training_options
from edgebit.cli.training_watch import training_watch
from edgebit.train.data.preparation import DataSettings
from edgebit.train.requirements import require_packages
from edgebit.train.shape import ModelShape


@click.command()
@click.argument("teacher", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("paths", metavar="DATA...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the master.")
@click.option("--student", "form", type=click.Choice(["bitnet", "llama"]), default="bitnet", show_default=True,
              help="bitnet: with sub-norms; llama: as the teacher.")  # fmt: skip
@click.option("--temperature", type=float, default=2.0, show_default=True, help="Of both predictions.")
@click.option("--teacher-share", "share", type=click.FloatRange(0, 1), default=0.9, show_default=True,
              help="Of the loss; the rest is the text's own.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on at the step that was saved last.")
@data_options
@training_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    teacher: Path,
    paths: tuple[Path, ...],
    out: Path,
    form: Literal["bitnet", "llama"],
    temperature: float,
    share: float,
    resume: bool,
    dry_run: bool,
    data: DataSettings,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a ternary model of TEACHER, an ordinary Llama-like checkpoint, by training on DATA with its logits.

    The student has the teacher's shape and begins with its weights, rounded. What comes out is a master, which
    transformers loads and `edgebit build` takes; how much of the teacher it has is told beside what rounding alone
    leaves.

    \b
    edgebit distill ./small-llama text.txt --steps 2000 --out ./ternary
    edgebit distill ./small-llama chats.jsonl --student llama --temperature 1 --out ./ternary
    """
    if data.tokenizer is not None:
        raise click.UsageError("--tokenizer is the teacher's own. Leave it out")
    check_training_options(options)
    if dry_run:
        open_float_model(teacher).close()
        others = {name: options[name] for name in ("evaluate_on", "row_length", "batch_tokens")}
        return echo_dry_run(paths, replace(data, tokenizer=teacher), **others, as_json=as_json)
    require_packages()
    from edgebit.train.distillation.from_data import distill
    from edgebit.train.from_data import Plan

    plan = Plan(
        paths=paths, data=data, evaluate_on=options["evaluate_on"], shape=ModelShape(), settings=settings_of(options),
        row_length=options["row_length"], epochs=options["epochs"], seed=options["seed"],
    )  # fmt: skip
    with progress_bar() as show, training_watch(show) as listener:
        done = distill(
            plan, teacher, out, form=form, temperature=temperature, share=share, resume=resume, listener=listener,
            progress=show,
        )  # fmt: skip
    last = done.outcome.records[-1]
    if not done.outcome.finished:
        click.echo(f"stopped after step {last.step}, and saved. Go on with the same command and --resume", err=True)
        sys.exit(130)
    facts = {
        "out": str(out), "student": form, "parameters": done.parameters, "steps": last.step, "tokens": last.tokens,
        "held_out": {
            name: asdict(found)
            for name in ("teacher", "rounded", "student")
            if (found := getattr(done, name)) is not None
        },
        "response_schema": None if done.response_schema is None else str(done.response_schema),
        "pictures": [str(path) for path in done.pictures],
    }  # fmt: skip
    click.echo(printable_json(facts, indent=2) if as_json else printable("\n".join(_lines(facts))))
    return None


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"{facts['out']}: a master of {facts['parameters']:,} parameters, a ternary student of its teacher",
        f"  learnt    {facts['steps']:,} steps, {facts['tokens']:,} tokens",
    ]
    words = {"teacher": "teacher", "rounded": "rounded alone (--from-float)", "student": "student"}
    for name, found in facts["held_out"].items():
        lines.append(f"  held out  loss {found['loss']:.4f}, {found['accuracy']:.1%} predicted: {words[name]}")
    if facts["response_schema"]:
        lines.append(SCHEMA_TAKEN_OVER.format("the teacher"))
    lines.append(f"  curve     {', '.join(facts['pictures'])}")
    lines.append(f"Next: edgebit build {facts['out']} --target rpi --out {Path(facts['out']).name}.bundle")
    return lines
