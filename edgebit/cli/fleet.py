"""edgebit fleet: which devices there are, and how they all are."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgebit.cli.fleet_export import export
from edgebit.cli.rollout import FleetChoice, choice_options
from edgebit.cli.terminal import printable
from edgebit.fleet.inventory import FleetDevice, find_inventory, read_inventory
from edgebit.fleet.survey import DeviceStatus, survey


@click.group()
def command() -> None:
    """The devices of an inventory, fleet.toml, and ways to others' update managers (docs/fleet.md).

    \b
    edgebit fleet status
    edgebit deploy chat.bundle --group kitchen --canary 1 --batch 25% --max-failures 2
    """


command.add_command(export)


@command.command("list", short_help="List the devices, without asking them anything.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@choice_options
def list_devices(fleet: FleetChoice, as_json: bool) -> None:
    """List the devices chosen, or all of them, without asking them anything.

    \b
    edgebit fleet list --label board=rpi4
    """
    _, devices = fleet.read()
    if as_json:
        click.echo(json.dumps([_as_dict(device) for device in devices], indent=1))
        return
    table = Table("device", "groups", "labels", "way", box=None, header_style="bold")
    for device in devices:
        labels = " ".join(f"{key}={value}" for key, value in device.labels.items())
        table.add_row(device.name, " ".join(device.groups) or "-", escape(labels) or "-", escape(device.url))
    Console(highlight=False).print(table)


@command.command(short_help="Show what the inventory says of a device.")
@click.argument("name")
@click.option("--inventory", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The fleet.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, inventory: Path | None, as_json: bool) -> None:
    """Show what the inventory says of the device NAME, its groups and the defaults among it.

    \b
    edgebit fleet show kitchen-1
    """
    (device,) = read_inventory(find_inventory(inventory)).select(names=[name])
    told = _as_dict(device)
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return
    for key, value in told.items():
        click.echo(f"{key:<18} {_text(value)}")


@command.command()
@click.option("--parallel", type=click.IntRange(1, 64), default=16, show_default=True, help="Devices at the same time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@choice_options
def status(fleet: FleetChoice, parallel: int, as_json: bool) -> None:
    """Ask the devices chosen, or all of them, how they are. Exit code 1 if one is not up.

    \b
    edgebit fleet status --group kitchen
    """
    _, devices = fleet.read()
    found: dict[str, DeviceStatus] = {}
    waiting = Console(stderr=True)
    with waiting.status(f"0 of {len(devices)} answered") as spinner:
        for told in survey(devices, parallel):
            found[told.name] = told
            spinner.update(f"{len(found)} of {len(devices)} answered")
    statuses = [found[device.name] for device in devices]
    if as_json:
        click.echo(json.dumps([asdict(told) for told in statuses], indent=1))
    else:
        _show_statuses(statuses)
    if not all(told.up for told in statuses):
        sys.exit(1)


def _show_statuses(statuses: list[DeviceStatus]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("device", no_wrap=True, overflow="ellipsis", max_width=20)
    table.add_column("daemon")
    table.add_column("bundle", overflow="fold")
    table.add_column("slot")
    table.add_column("disk free", justify="right")
    table.add_column("heat", justify="right")
    for told in statuses:
        table.add_row(
            told.name,
            _daemon(told),
            f"{told.bundle} {escape(printable(told.bundle_name))}" if told.bundle else "-",
            f"{told.slot} {told.state}".strip() or "-",
            f"{told.free_bytes / 1e9:.1f} GB" if told.free_bytes else "-",
            "-" if told.temperature_c is None else f"{told.temperature_c:.0f} °C",
        )
    Console(highlight=False).print(table)
    for told in statuses:
        if told.why:
            click.echo(f"{told.name}: {printable(told.why)}")
        if told.refused:
            click.echo(f"{told.name}: {told.refused} bundle{'s' if told.refused > 1 else ''} taken back there")


def _daemon(told: DeviceStatus) -> str:
    if not told.reachable:
        return "[red]out of reach[/red]"
    if not told.installed:
        return "[red]fault[/red]" if told.why else "[yellow]none[/yellow]"
    if told.service == "none":
        return "[yellow]none[/yellow]"
    return "[green]up[/green]" if told.up else "[red]down[/red]"


def _as_dict(device: FleetDevice) -> dict[str, Any]:
    told = {key: value for key, value in asdict(device).items() if value not in (None, (), {})}
    return {key: str(value) if isinstance(value, Path) else value for key, value in told.items()}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={json.dumps(item) if isinstance(item, dict) else item}" for key, item in value.items())
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)
