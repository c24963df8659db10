"""`edgebit adapter`: LoRA adapters that go beside a model."""

import click

from edgebit.cli import adapter_convert, adapter_inspect


@click.group()
def command() -> None:
    """Small files of low-rank matrices (LoRA) that change what a model answers, and leave its weights as they are.

    \b
    edgebit adapter convert ./lora --for chat.bundle --out garden.adapter
    edgebit adapter inspect garden.adapter
    edgebit run chat.bundle "Water the roses." --adapter garden.adapter
    """


command.add_command(adapter_convert.command, "convert")
command.add_command(adapter_inspect.command, "inspect")
