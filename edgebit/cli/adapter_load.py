"""`edgebit adapter load`: have a device answer with an adapter."""

from pathlib import Path

import click

from edgebit.cli.broker_options import Connecting, broker_options
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.signing_options import key_password_file_option, sign_key_option, signer
from edgebit.cli.terminal import printable, printable_json
from edgebit.mqtt_client.adapters import load_adapter


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", metavar="NAME", required=True, help="The device's name (edgebit ask --list shows them).")
@click.option("--name", metavar="NAME", help="What requests call it. Default: the name in the file.")
@click.option("--json", "as_json", is_flag=True, help="Print the device's reply as JSON.")
@click.option(
    "--timeout", "timeout_s", type=click.IntRange(1), default=60, show_default=True, help="Of each message, s."
)
@broker_options
@sign_key_option
@key_password_file_option
def command(
    connecting: Connecting,
    file: Path,
    device: str,
    name: str | None,
    as_json: bool,
    timeout_s: int,
    sign_key: str | None,
    key_password_file: Path | None,
) -> None:
    """Load an adapter onto a device while it runs.

    It stays there over restarts; one of the same name is replaced. The device's owner names who may load adapters:
    [adapters] may_load in its edgebitd.toml.

    \b
    edgebit adapter load garden.adapter --device raspberrypi
    edgebit ask --device raspberrypi --adapter garden "Water the roses."
    """
    data = file.read_bytes()
    with connecting.connect(signer(sign_key, key_password_file)) as client, progress_bar() as report:
        reply = load_adapter(client, device, data, str(file), name=name, timeout_s=timeout_s, report=report)
    if as_json:
        click.echo(printable_json(reply))
        return
    called = printable(str(reply.get("adapter")))
    if reply.get("changed"):
        click.echo(f"{device} answers with adapter {called} from now on: --adapter {called}")
    else:
        click.echo(f"{device} had this very adapter already, as {called}")
