"""`edgebit status`: what runs on a device."""

import json
import sys
from typing import Any

import click

from edgebit.cli.deploy import device_options, way
from edgebit.deploy.device import device_at
from edgebit.transport import open_transport


@click.command()
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@device_options
def command(url: str, as_json: bool, **device: Any) -> None:
    """Show the bundles on the device at URL and whether its daemon runs. Exit code 1 if it does not.

    \b
    edgebit status ssh://pi@raspberrypi.local
    """
    with open_transport(url, way(**device)) as transport:
        status = device_at(transport).status()
    if as_json:
        click.echo(json.dumps(status, indent=1))
    else:
        show_status(status)
    if not status["up"]:
        sys.exit(1)


def show_status(status: dict[str, Any]) -> None:
    """Print the status for people."""
    probe = status["probe"]
    memory = f"{probe['available_bytes'] / 1e6:.0f} of {probe['memory_bytes'] / 1e6:.0f} MB memory free"
    click.echo(
        f"{probe['host']}: {probe['arch']}, {probe['kernel']}, {memory}, {status['free_bytes'] / 1e6:.0f} MB disk free"
    )
    if status["service"] == "none":
        click.echo("daemon: none, for there is no python3; nothing answers over MQTT, edgebit-run is run by hand")
    else:
        running = f"process {status['pid']}" if status["pid"] else "starting again" if status["up"] else "not running"
        click.echo(
            f"daemon: {running} ({status['service'] or 'never started'}), "
            + (f"device {status['device']}, broker {status['broker']}" if status["broker"] else "no settings yet")
        )
    if status.get("config_error"):
        click.echo(f"configuration: {status['config_error']}")
    click.echo(f"takes: {_taken(status['trust'])}")
    for name, slot in sorted(status["slots"].items()):
        mark = "*" if name == status["active"] else " "
        state = f"on trial, {slot['tries_left']} starts left" if slot["status"] == "trying" else slot["status"]
        click.echo(
            f"{mark} {name}  {slot['id']}  {slot['name']}  {slot['model']}  {slot['bytes'] / 1e6:.1f} MB  {state}"
        )
    for identity, reason in status["refused"].items():
        click.echo(f"refused: {identity}: {reason}")


def _taken(trust: dict[str, Any] | None) -> str:
    """Which bundles the device takes, by its policy."""
    if trust is None:
        return "any bundle, until the first is kept"
    if "error" in trust:
        return f"no bundle: {trust['error']}"
    if not trust["keys"]:
        return "unsigned bundles, until the first signed one" if trust["unsigned"] == "allow" else "signed bundles"
    unsigned = ", and unsigned ones" if trust["unsigned"] == "allow" else ""
    return f"bundles signed by key {' or '.join(trust['keys'])}, from sequence {trust['floor']}{unsigned}"
