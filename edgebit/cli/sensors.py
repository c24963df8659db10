"""`edgebit sensors`: what a device's sensors say."""

from typing import Any

import click

from edgebit.cli.deploy import device_options, way
from edgebit.cli.terminal import printable, printable_json
from edgebit.daemon.sensors.listing import table
from edgebit.deploy.device import Device
from edgebit.transport import open_transport


@click.command()
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a look.")
@click.option("--watch", is_flag=True, help="Go on looking, until Ctrl-C.")
@device_options
def command(url: str, as_json: bool, watch: bool, **device: Any) -> None:
    """Print every sensor of the device at URL, with source and age, or the reason why it says nothing.

    They are read anew, with the rights of the user that URL logs in as. A serial meter that the daemon has open is its
    own: what it says goes over MQTT, in the device's metrics.

    \b
    edgebit sensors ssh://pi@raspberrypi.local
    """
    with open_transport(url, way(**device)) as transport:
        installed = Device.installed(transport)
        while True:
            readings = installed.ask("sensors")
            if watch and not as_json:
                click.clear()
            click.echo(printable_json(readings) if as_json else printable("\n".join(table(readings))))
            if not watch:
                return
