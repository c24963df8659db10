"""`edgebit adapter`: LoRA adapters that go beside a model."""

import click

from edgebit.cli import adapter_convert, adapter_inspect, adapter_list, adapter_load, adapter_unload


@click.group()
def command() -> None:
    """Small files of low-rank matrices (LoRA) that change what a model answers, and leave its weights as they are.

    \b
    edgebit adapter convert ./lora --for chat.bundle --out garden.adapter
    edgebit adapter inspect garden.adapter
    edgebit run chat.bundle "Water the roses." --adapter garden.adapter
    edgebit adapter load garden.adapter --device raspberrypi
    """


command.add_command(adapter_convert.command, "convert")
command.add_command(adapter_inspect.command, "inspect")
command.add_command(adapter_load.command, "load")
command.add_command(adapter_unload.command, "unload")
command.add_command(adapter_list.command, "list")
