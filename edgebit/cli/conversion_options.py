"""The options of every command that converts a checkpoint."""

import click

from edgebit.checkpoint.chat_template.choice import BUILT_IN, NO_TEMPLATE
from edgebit.cli.name_or_file import complete_name_or_file

embedding_option = click.option(
    "--embedding",
    type=click.Choice(["exact", "int8"]),
    default="exact",
    show_default=True,
    help="int8 is smaller and lossy (docs/decisions).",
)
template_option = click.option(
    "--template",
    metavar="NAME|FILE",
    shell_complete=complete_name_or_file((*BUILT_IN, NO_TEMPLATE)),
    help=f"A chat template in the place of the checkpoint's: {', '.join(BUILT_IN)}, a file with Jinja, or {NO_TEMPLATE}"
    " for prompts of plain text.",
)
