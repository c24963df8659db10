"""edgebit targets: list the devices that bundles can be built for, or show one."""

import dataclasses
import json
from typing import Any

import click
from click.shell_completion import CompletionItem
from rich.table import Column, Table

from edgebit.cli.terminal import print_table
from edgebit.errors import EdgebitError
from edgebit.resources import targets_dir
from edgebit.targets import HOST, CyclesPerWeight, Target, find_target, host_target, list_targets

# How `show` and the list name what targets/README.md documents.
_SHOWN = {
    "triple": "{}",
    "cpu": "{}",
    "features": "{}",
    "stands_for": "{}",
    "cores": "{}",
    "big_cores": "{}",
    "clock_ghz": "{} GHz",
    "memory_mib": "{} MiB",
    "read_gb_s": "{} GB/s, all cores",
    "read_core_gb_s": "{} GB/s, one core",
    "cycles_per_weight": "{}",
    "idle_w": "{} W",
    "load_w": "{} W, all cores busy",
    "page_kib": "up to {} KiB",
    "throttle_c": "{} °C",
    "glibc_floor": "{}",
    "api_level": "{}",
    "sensors": "{}",
    "service": "{}",
    "emulate_cpus": "{}",
}


def complete_target(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What the Tab key offers for a target's name; a file that cannot be used is passed over."""
    try:
        names = {target.name: target.description for target in list_targets(lambda problem: None)}
    except EdgebitError:  # an error would be printed into the line that is being typed
        names = {}
    names[HOST] = "This machine"
    return [CompletionItem(name, help=text) for name, text in names.items() if name.startswith(incomplete)]


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the devices that bundles can be built for; `edgebit targets show NAME` tells more of one.

    Your own are TOML files in ~/.config/edgebit/targets, or in the folders that EDGEBIT_TARGETS names.

    \b
    edgebit targets show rpi5
    """
    if context.invoked_subcommand is None:
        _print_list(as_json)


def _print_list(as_json: bool) -> None:
    targets = [*list_targets(lambda problem: click.echo(f"left out: {problem}", err=True)), host_target()]
    if as_json:
        click.echo(json.dumps([_as_dict(target) for target in targets], indent=2, ensure_ascii=False))
        return
    heads = (Column("target", no_wrap=True), "device", "architecture", "features", "file")
    table = Table(*heads, box=None, header_style="bold")
    for target in targets:
        table.add_row(
            target.name, target.description, target.arch, " ".join(target.features) or "-", _short_place(target)
        )
    print_table(table)


def _short_place(target: Target) -> str:
    if target.path is None:
        return "-"
    return "edgebit's" if target.path.parent == targets_dir().resolve() else str(target.path)


@command.command("list", short_help="List the devices that bundles can be built for.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """List the devices that bundles can be built for, as `edgebit targets` does.

    \b
    edgebit targets list
    """
    assert context.parent is not None
    _print_list(as_json or context.parent.params["as_json"])


@command.command()
@click.argument("name", shell_complete=complete_target)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the target NAME, or the target in the TOML file NAME.

    \b
    edgebit targets show rpi5
    """
    target = find_target(name)
    if as_json:
        click.echo(json.dumps(_as_dict(target), indent=2, ensure_ascii=False))
        return
    click.echo(f"{target.name}: {target.description}")
    click.echo(f"  {'file':<17} {target.path or '-'}")
    for key, form in _SHOWN.items():
        text = _text(getattr(target, key))
        click.echo(f"  {key:<17} {form.format(text) if text else '-'}")
    for figure, source in target.sources:
        click.echo(f"  {figure} is from: {source}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, CyclesPerWeight):
        known = {key: cycles for key, cycles in dataclasses.asdict(value).items() if cycles is not None}
        return ", ".join(f"{key} {cycles}" for key, cycles in known.items())
    if isinstance(value, tuple):
        return (" to " if value and isinstance(value[0], float | int) else ", ").join(map(str, value))
    return str(value)


def _as_dict(target: Target) -> dict[str, Any]:
    path = None if target.path is None else str(target.path)
    return {**dataclasses.asdict(target), "path": path, "sources": dict(target.sources)}
