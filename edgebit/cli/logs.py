"""`edgebit logs`: the daemon's log of a device."""

import select
import sys
from typing import Any

import click

from edgebit.cli.deploy import device_options, way
from edgebit.deploy.device import device_at
from edgebit.transport import open_transport

POLL_S = 1.0


@click.command()
@click.argument("url")
@click.option("-n", "lines", type=click.IntRange(0), default=100, show_default=True, help="Lines from the end.")
@click.option("-f", "follow", is_flag=True, help="Go on as the log grows, until Ctrl-C.")
@device_options
def command(url: str, lines: int, follow: bool, **device: Any) -> None:
    """Print the daemon's log of the device at URL.

    \b
    edgebit logs ssh://pi@raspberrypi.local -f
    """
    with open_transport(url, way(**device)) as transport:
        installed = device_at(transport)
        text, position = installed.logs(lines)
        click.echo(text, nl=False)
        while follow:
            _wait(POLL_S)
            text, position = installed.logs_after(position)
            click.echo(text, nl=False)


def _wait(seconds: float) -> None:
    """Sleep. Raises BrokenPipeError where the reader of standard output goes away meanwhile (`| head`)."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # faults alone
    if output.poll(seconds * 1000):
        raise BrokenPipeError
