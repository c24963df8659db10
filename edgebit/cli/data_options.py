"""The options of every command that reads training data."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from edgebit.checkpoint.chat_template.choice import BUILT_IN, NO_TEMPLATE
from edgebit.cli.name_or_file import complete_name_or_file
from edgebit.train.data.formats import FORMATS
from edgebit.train.data.preparation import DataSettings
from edgebit.train.data.records import Parting
from edgebit.train.data.tokenizer_training import TEMPLATE

_OPTIONS = {
    "format": click.option(
        "--format", type=click.Choice(FORMATS), help="Of the records.  [default: as their keys tell]"
    ),
    "parting": click.option(
        "--documents",
        "parting",
        type=click.Choice(get_args(Parting)),
        default=DataSettings().parting,
        show_default=True,
        help="Of plain text: parted by blank lines, or a file each.",
    ),
    "skip_invalid": click.option(
        "--skip-invalid", is_flag=True, help="Leave out and count records that cannot be learnt from."
    ),
    "eval_share": click.option(
        "--eval-share",
        type=click.FloatRange(0, 0.9),
        default=DataSettings().eval_share,
        show_default=True,
        help="Of the data, held out for the evaluation: by content, so the same in any order.",
    ),
    "tokenizer": click.option(
        "--tokenizer",
        type=click.Path(exists=True, path_type=Path),
        help="The folder of one that is there.  [default: one is learnt from the data]",
    ),
    "vocab_size": click.option(
        "--vocab",
        "vocab_size",
        type=click.IntRange(256, 1 << 20),
        help="Tokens of a tokenizer that is learnt.  [default: 4096, or as many as the data give]",
    ),
    "template": click.option(
        "--template",
        metavar="NAME|FILE",
        shell_complete=complete_name_or_file((*BUILT_IN, NO_TEMPLATE)),
        help=f"Chat template: {', '.join(BUILT_IN)}, a file with Jinja, or {NO_TEMPLATE}."
        f"  [default: the tokenizer's own, or {TEMPLATE}]",
    ),
}


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets them as one argument, `data`: DataSettings."""

    @functools.wraps(command)
    def with_data(*args: Any, **values: Any) -> Any:
        data = DataSettings(**{field.name: values.pop(field.name) for field in dataclasses.fields(DataSettings)})
        return command(*args, data=data, **values)

    for option in reversed(_OPTIONS.values()):
        with_data = option(with_data)
    return with_data
