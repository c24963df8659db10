"""`edgebit uninstall`: remove edgebit from a device."""

import sys
from typing import Any

import click

from edgebit.cli.deploy import device_options, way
from edgebit.cli.terminal import printable
from edgebit.deploy.device import removable
from edgebit.device_probe import probe
from edgebit.transport import open_transport


@click.command()
@click.argument("url")
@click.option(
    "--keep-config", is_flag=True, help="Leave edgebitd.toml, the broker's password, and what the broker retains."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@device_options
def command(url: str, keep_config: bool, yes: bool, **device: Any) -> None:
    """Stop the daemon of the device at URL and remove everything edgebit put there.

    The device also has its broker forget what it retains: availability, info, status, Home Assistant's document.

    \b
    edgebit uninstall ssh://pi@raspberrypi.local
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("it asks before it removes anything: that needs a terminal, or --yes")
    with open_transport(url, way(**device)) as transport:
        installed = removable(transport, probe(transport))
        if installed is None:
            click.echo(f"There is no edgebit on {url} under {transport.root}: nothing to remove")
            return
        question = f"Remove edgebit, its models and settings from {url} ({transport.root})?"
        if not yes and not click.confirm(question):
            click.echo("Nothing was changed")
            return
        left = installed.uninstall(keep_config=keep_config, say=lambda text: click.echo(printable(text), err=True))
    click.echo(f"Removed. Left in {transport.root}: {', '.join(left)}" if left else "Removed; nothing is left")
