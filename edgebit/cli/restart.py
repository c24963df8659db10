"""`edgebit restart`: have a device's daemon read its settings anew."""

from typing import Any

import click

from edgebit.cli.deploy import device_options, way
from edgebit.cli.terminal import printable, printable_json
from edgebit.deploy.device import Device
from edgebit.deploy.plan import CHECK_TIMEOUT_S, default_service
from edgebit.transport import open_transport


@click.command()
@click.argument("url")
@click.option("--timeout", "timeout_s", type=click.IntRange(1, 86_400), default=int(CHECK_TIMEOUT_S), show_default=True,
              help="Seconds that the daemon has to answer.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_options
def command(url: str, timeout_s: float, as_json: bool, **device: Any) -> None:
    """Start the daemon of the device at URL again with edgebitd.toml as it is now, and wait for its answer.

    Settings with a fault are named, and the daemon that runs goes on with those it has. What it is answering gets 503.
    Where no answer comes in time, the last lines of its log are shown.

    \b
    edgebit restart ssh://pi@raspberrypi.local
    """
    with open_transport(url, way(**device)) as transport:
        answer = Device.installed(transport).restart(
            service=default_service(url), check_timeout_s=timeout_s, say=lambda text: click.echo(text, err=True)
        )
    if as_json:
        click.echo(printable_json(answer))
        return
    click.echo(
        printable(
            f"Bundle {answer['id']} answers as {answer['device']} over {answer['broker']} with the settings of"
            f" {answer['settings']} after {answer['answer_s']:.1f} s"
        )
    )
