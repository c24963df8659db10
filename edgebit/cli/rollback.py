"""`edgebit rollback`: return a device to the bundle before."""

from typing import Any

import click

from edgebit.cli.deploy import device_options, way
from edgebit.deploy.device import device_at
from edgebit.deploy.plan import CHECK_TIMEOUT_S, default_service
from edgebit.transport import open_transport


@click.command()
@click.argument("url")
@click.option("--timeout", "timeout_s", type=click.IntRange(1, 86_400), default=int(CHECK_TIMEOUT_S), show_default=True,
              help="Seconds that the bundle before has to answer.")  # fmt: skip
@device_options
def command(url: str, timeout_s: float, **device: Any) -> None:
    """Return the device at URL to the bundle before, and wait for its answer. A second time goes forward again.

    \b
    edgebit rollback ssh://pi@raspberrypi.local
    """
    with open_transport(url, way(**device)) as transport:
        back = device_at(transport).rollback(
            service=default_service(url), check_timeout_s=timeout_s, say=lambda text: click.echo(text, err=True)
        )
    where = f"is active again in slot {back['slot']}"
    click.echo(f"Bundle {back['id']} {where}, and answered after {back['answer_s']:.1f} s")
