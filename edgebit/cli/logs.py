"""`edgebit logs`: the daemon's log of a device."""

import select
import sys
from typing import Any

import click

from edgebit.cli.deploy import device_options, way
from edgebit.cli.terminal import printable, printable_json
from edgebit.deploy.device import Device, device_at
from edgebit.transport import open_transport

POLL_S = 1.0


@click.command()
@click.argument("url")
@click.option("-n", "lines", type=click.IntRange(0), default=100, show_default=True, help="Lines from the end.")
@click.option("-f", "follow", is_flag=True, help="Go on as the log grows, until Ctrl-C.")
@click.option("--security", is_flag=True, help="Whom the device refused, and why; callers stand there by hashed names.")
@click.option("--json", "as_json", is_flag=True, help="With --security: print JSON.")
@device_options
def command(url: str, lines: int, follow: bool, security: bool, as_json: bool, **device: Any) -> None:
    """Print the daemon's log of the device at URL.

    \b
    edgebit logs ssh://pi@raspberrypi.local -f
    edgebit logs ssh://pi@raspberrypi.local --security -n 20
    """
    if security and follow:
        raise click.UsageError("--security and -f do not go together")
    if as_json and not security:
        raise click.UsageError("--json goes with --security: the log is text")
    with open_transport(url, way(**device)) as transport:
        if security:
            _print_security(Device.installed(transport).security(lines), as_json)
            return
        installed = device_at(transport)
        text, position = installed.logs(lines)
        click.echo(text, nl=False)
        while follow:
            _wait(POLL_S)
            text, position = installed.logs_after(position)
            click.echo(text, nl=False)


def _print_security(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(printable_json(answer))
        return
    for fact in answer["lines"]:
        others = (f"{name}={value}" for name, value in fact.items() if name != "time")
        click.echo(printable(" ".join([str(fact.get("time", "?")), *others]).replace("\n", " ")))
    counts = answer["summary"]
    if not counts["refused"]:
        click.echo("Nothing was refused, as far as this log goes back.")
        return
    click.echo(printable(f"\n{counts['refused']} refused from {counts['from']} to {counts['to']}:"))
    for kind in ("codes", "ops", "principals"):
        click.echo(printable(f"  by {kind[:-1]}: " + ", ".join(f"{name} {n}" for name, n in counts[kind].items())))
    if counts["lines_suppressed"]:
        click.echo(f"  {counts['lines_suppressed']} lines came too fast to be written: counted by code only")


def _wait(seconds: float) -> None:
    """Sleep. Raises BrokenPipeError where the reader of standard output goes away meanwhile (`| head`)."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # faults alone
    if output.poll(seconds * 1000):
        raise BrokenPipeError
