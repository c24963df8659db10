"""edgebit targets: list the devices that bundles can be built for, or show one."""

import dataclasses
import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from edgebit.targets import Target, find_target, host_target, list_targets

# How `show` and the list name what targets/README.md documents.
_SHOWN = {
    "triple": "{}",
    "cpu": "{}",
    "features": "{}",
    "cores": "{}",
    "memory_mib": "{} MiB",
    "read_gb_s": "{} GB/s, measured, one core",
    "page_kib": "up to {} KiB",
    "throttle_c": "{} °C",
    "glibc_floor": "{}",
    "sensors": "{}",
    "service": "{}",
    "emulate_cpus": "{}",
}


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the devices that bundles can be built for."""
    if context.invoked_subcommand is not None:
        return
    targets = [*list_targets(), host_target()]
    if as_json:
        click.echo(json.dumps([_as_dict(target) for target in targets], indent=2, ensure_ascii=False))
        return
    table = Table("target", "device", "architecture", "features", box=None, header_style="bold")
    for target in targets:
        table.add_row(target.name, target.description, target.arch, " ".join(target.features) or "-")
    Console().print(table)


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the target NAME, or the target in the TOML file NAME."""
    target = find_target(name)
    if as_json:
        click.echo(json.dumps(_as_dict(target), indent=2, ensure_ascii=False))
        return
    click.echo(f"{target.name}: {target.description}")
    for key, form in _SHOWN.items():
        value = getattr(target, key)
        text = ", ".join(value) if isinstance(value, tuple) else value
        click.echo(f"  {key:<13} {form.format(text) if text not in (None, '') else '-'}")


def _as_dict(target: Target) -> dict[str, Any]:
    return dataclasses.asdict(target)
