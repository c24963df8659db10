"""The options of every command that trains: rows, steps, rates, and where it is computed."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from edgebit.train.schedule import Schedule

SCHEMA_TAKEN_OVER = "  answers   follow response_schema.json of {}, taken over: remove it where they no longer do"
_DATA = click.Path(exists=True, path_type=Path)
_OPTIONS = (
    click.option("--eval", "evaluate_on", multiple=True, type=_DATA, help="Data to evaluate on, instead of a share."),
    click.option(
        "--row-length", type=click.IntRange(2), default=256, show_default=True, help="Tokens; documents share it."
    ),
    click.option("--batch-tokens", type=click.IntRange(2), default=4096, show_default=True, help="Of a step."),
    click.option(
        "--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Parts of a step: less memory."
    ),
    click.option("--steps", type=click.IntRange(1), help="[default: 2000]"),
    click.option(
        "--epochs", type=click.FloatRange(0, min_open=True), help="Times through the data, instead of --steps."
    ),
    click.option(
        "--learning-rate", type=float, default=Schedule(steps=1).learning_rate, show_default=True, help="Highest."
    ),
    click.option(
        "--weight-decay",
        type=float,
        default=Schedule(steps=1).weight_decay,
        show_default=True,
        help="Of the first stage; the second has none.",
    ),
    click.option("--warmup", type=click.IntRange(0), help="Steps.  [default: a tenth of all, at most 100]"),
    click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=1, show_default=True),
    click.option("--threads", type=click.IntRange(1), help="[default: as many as there are cores]"),
    click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
    click.option(
        "--compile/--no-compile", "compiled", default=True, show_default=True, help="torch.compile, where it works."
    ),
    click.option(
        "--bf16/--no-bf16",
        "bf16_products",
        default=False,
        show_default=True,
        help="Factors of products in bfloat16: twice as fast where the CPU has them.",
    ),
    click.option(
        "--eval-every", type=click.IntRange(0), default=200, show_default=True, help="Steps; 0: at the end alone."
    ),
    click.option("--save-every", type=click.IntRange(1), default=200, show_default=True, help="Steps."),
    click.option("--dry-run", is_flag=True, help="Say what the data hold, and train nothing."),
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, which the command gets one by one."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_training_options(options: dict[str, Any]) -> None:
    """Raise UsageError where options exclude each other."""
    if options["steps"] is not None and options["epochs"] is not None:
        raise click.UsageError("--steps and --epochs say the same. Give one of them")
    if options["batch_tokens"] < options["row_length"]:
        raise click.UsageError(f"a batch of {options['batch_tokens']} tokens holds no row of {options['row_length']}")


def settings_of(options: dict[str, Any]) -> Any:
    """The Settings that the options ask for; options of other names do not matter."""
    from edgebit.train.trainer import Settings

    shared = {field.name: options[field.name] for field in fields(Schedule) if field.name in options}
    return Settings(
        schedule=Schedule(**{**shared, "steps": options["steps"] or 2000}),
        batch_rows=options["batch_tokens"] // options["row_length"], accumulate=options["accumulate"],
        device=options["device"], compile=options["compiled"], threads=options["threads"],
        bf16_products=options["bf16_products"],
        evaluate_every=options["eval_every"], save_every=options["save_every"],
    )  # fmt: skip
