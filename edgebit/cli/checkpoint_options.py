"""The options of every command that reads a checkpoint: what its files may not say."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgebit.checkpoint.hints import I2S_DIALECTS, PRE_TOKENIZERS, Hints

pre_tokenizer_option = click.option(
    "--pre-tokenizer",
    type=click.Choice(PRE_TOKENIZERS),
    help="How a GGUF file's tokenizer cuts text, where the file does not say.",
)
_OPTIONS = (
    click.option(
        "--i2s-dialect",
        type=click.Choice(I2S_DIALECTS),
        help="Of a GGUF file with I2_S weights, where it cannot be told (docs/models.md).",
    ),
    click.option(
        "--i2s-reference",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="The Hugging Face checkpoint of such a file, which tells it.",
    ),
    click.option(
        "--activations",
        type=click.Choice(["int8", "float"]),
        help="What a GGUF file's model was trained with.  [default: as the file tells]",
    ),
    pre_tokenizer_option,
)


def checkpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets them as one argument, `hints`."""

    @functools.wraps(command)
    def with_hints(*args: Any, **values: Any) -> Any:
        hints = Hints(**{field.name: values.pop(field.name) for field in dataclasses.fields(Hints)})
        return command(*args, hints=hints, **values)

    for option in reversed(_OPTIONS):
        with_hints = option(with_hints)
    return with_hints
