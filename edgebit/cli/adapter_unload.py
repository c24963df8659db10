"""`edgebit adapter unload`: have a device forget an adapter."""

from pathlib import Path

import click

from edgebit.cli.broker_options import Connecting, broker_options
from edgebit.cli.signing_options import key_password_file_option, sign_key_option, signer
from edgebit.errors import DeviceError
from edgebit.mqtt_client.adapters import unload_adapter


@click.command()
@click.argument("name")
@click.option("--device", metavar="NAME", required=True, help="The device's name (edgebit ask --list shows them).")
@click.option("--timeout", "timeout_s", type=click.IntRange(1), default=60, show_default=True, help="In seconds.")
@broker_options
@sign_key_option
@key_password_file_option
def command(
    connecting: Connecting,
    name: str,
    device: str,
    timeout_s: int,
    sign_key: str | None,
    key_password_file: Path | None,
) -> None:
    """Take the adapter NAME off a device.

    Answers that are being made with it go on.

    \b
    edgebit adapter unload garden --device raspberrypi
    """
    with connecting.connect(signer(sign_key, key_password_file)) as client:
        if not unload_adapter(client, device, name, timeout_s=timeout_s):
            raise DeviceError(
                f"{device} has no adapter {name}. edgebit adapter list --device {device} shows those it has"
            )
    click.echo(f"{device} has adapter {name} no longer")
