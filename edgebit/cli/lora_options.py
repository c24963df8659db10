"""The options of `edgebit train` that make an adapter of it, in peft's terms."""

import functools
from collections.abc import Callable
from typing import Any

import click

from edgebit.checkpoint.hugging_face.lora_config import LoraConfig
from edgebit.train.lora.targets import ALL_LINEAR, target_roles

_OPTIONS = (
    click.option("--lora", "rank", type=int, metavar="RANK", help="Train an adapter of that rank to --from."),
    click.option("--lora-alpha", type=float, help="The pair counts alpha / rank times.  [default: twice the rank]"),
    click.option(
        "--lora-targets", default=ALL_LINEAR, show_default=True, help="Projections, as q_proj,v_proj, or all-linear."
    ),
    click.option("--lora-dropout", type=click.FloatRange(0, 0.9), default=0.0, show_default=True,
                 help="Of the pair's input, while training."),
    click.option("--lora-rslora", is_flag=True, help="alpha / sqrt(rank) in place of alpha / rank."),
)  # fmt: skip


def lora_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets them as one argument, `lora`: LoraConfig, or None where it makes a model."""

    @functools.wraps(command)
    def with_lora(*args: Any, **values: Any) -> Any:
        rank, alpha, targets, dropout, rslora = (
            values.pop(name) for name in ("rank", "lora_alpha", "lora_targets", "lora_dropout", "lora_rslora")
        )
        if rank is None:
            if alpha is not None or dropout or rslora or targets != ALL_LINEAR:
                raise click.UsageError("--lora-alpha, -targets, -dropout and -rslora go with --lora RANK")
            return command(*args, lora=None, **values)
        names = tuple(name.strip() for name in targets.split(",") if name.strip())
        target_roles(names)
        lora = LoraConfig(
            rank=rank, alpha=2 * rank if alpha is None else alpha, dropout=dropout, target_modules=names,
            use_rslora=rslora,
        )  # fmt: skip
        return command(*args, lora=lora, **values)

    for option in reversed(_OPTIONS):
        with_lora = option(with_lora)
    return with_lora
