"""`edgebit adapter list`: which adapters a device has."""

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from edgebit.cli.broker_options import Connecting, broker_options
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.mqtt_client.adapters import list_adapters


@click.command()
@click.option("--device", metavar="NAME", required=True, help="The device's name (edgebit ask --list shows them).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@broker_options
def command(connecting: Connecting, device: str, as_json: bool) -> None:
    """Show which adapters a device has.

    One that does not fit its model is kept, and not loaded; why stands beside it.

    \b
    edgebit adapter list --device raspberrypi
    """
    with connecting.connect() as client:
        adapters = list_adapters(client, device)
    if as_json:
        click.echo(printable_json(adapters))
        return
    if not adapters:
        click.echo(f"{device} has no adapters. Load one: edgebit adapter load FILE --device {device}")
        return
    table = Table("adapter", "bytes", "sha256", "loaded", box=None, pad_edge=False)
    for each in adapters:
        loaded = "yes" if each.get("loaded") is True else f"no: {each.get('fault', '')}"
        table.add_row(*map(_words, (each.get("name"), each.get("bytes"), str(each.get("sha256"))[:12], loaded)))
    print_table(table)


def _words(value: Any) -> Text:
    return Text(printable(str(value)).replace("\n", "\\n"))
