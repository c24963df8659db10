"""`edgebit uninstall`: remove edgebit from a device."""

from typing import Any

import click

from edgebit.cli.deploy import device_options, way
from edgebit.deploy.device import device_at
from edgebit.transport import open_transport


@click.command()
@click.argument("url")
@click.option("--keep-config", is_flag=True, help="Leave edgebitd.toml and the broker's password.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@device_options
def command(url: str, keep_config: bool, yes: bool, **device: Any) -> None:
    """Stop the daemon of the device at URL and remove everything edgebit put there.

    \b
    edgebit uninstall ssh://pi@raspberrypi.local
    """
    with open_transport(url, way(**device)) as transport:
        installed = device_at(transport)
        if not yes:
            click.confirm(f"Remove edgebit, its models and settings from {url} ({transport.root})?", abort=True)
        left = installed.uninstall(keep_config=keep_config)
    click.echo(f"Removed. Left in {transport.root}: {', '.join(left)}" if left else "Removed; nothing is left")
