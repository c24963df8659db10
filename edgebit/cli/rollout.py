"""What `edgebit deploy` does for many devices at once, and the options that choose them."""

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgebit.bundle.archive import Bundle
from edgebit.cli.broker_options import PASSWORD_VARIABLE
from edgebit.cli.rollout_display import RolloutDisplay
from edgebit.cli.terminal import printable
from edgebit.deploy.plan import InstallOptions, bytes_to_send
from edgebit.errors import ConfigError, DeployError
from edgebit.fleet.inventory import FleetDevice, Inventory, find_inventory, read_inventory
from edgebit.fleet.journal import DeviceReport, open_journal
from edgebit.fleet.rollout import Limits, Wave, parse_batch, plan_waves
from edgebit.fleet.runner import DevicePlan, Rollout, RolloutOptions, RolloutReport, plan_device

_STOPPED = 130  # as after any Ctrl-C


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetChoice:
    """Which devices of which inventory were chosen, and how a roll-out is to go."""

    inventory: Path | None = None
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    canary: int = 0
    batch: str = "100%"
    parallel: int = 4
    max_failures: int = 0
    soak_s: float = 0.0
    retries: int = 1
    fresh: bool = False

    @property
    def is_made(self) -> bool:
        """Whether devices of an inventory were named at all."""
        return bool(self.groups or self.labels or self.devices)

    def read(self) -> tuple[Inventory, tuple[FleetDevice, ...]]:
        """The inventory, and the devices chosen. Raises ConfigError."""
        inventory = read_inventory(find_inventory(self.inventory))
        return inventory, inventory.select(self.groups, parse_labels(self.labels), self.devices)


def parse_labels(texts: Sequence[str]) -> list[tuple[str, str]]:
    """KEY=VALUE of --label. Raises ConfigError."""
    pairs = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ConfigError(f"--label {text!r} is not KEY=VALUE, such as board=rpi4")
        pairs.append((key, value))
    return pairs


def _complete(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What the Tab key offers for a group's or a device's name."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        named = context.params.get("inventory")
        try:
            inventory = read_inventory(find_inventory(Path(named) if named else None))
        except ConfigError:
            return []
        names = inventory.groups if kind == "group" else tuple(device.name for device in inventory.devices)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


_CHOOSING = (
    click.option("--inventory", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                 help="The fleet.  [default: ./fleet.toml, else ~/.config/edgebit/fleet.toml]"),
    click.option("--group", "groups", multiple=True, metavar="NAME", shell_complete=_complete("group"),
                 help="Every device of a group; `all` for the whole inventory."),
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only devices with this label."),
    click.option("--device", "devices", multiple=True, metavar="NAME", shell_complete=_complete("device"),
                 help="A device of the inventory."),
)  # fmt: skip
_GOING_ON = (
    click.option("--canary", type=click.IntRange(0), default=0, metavar="N", help="Devices that go first, alone."),
    click.option("--soak", "soak_s", type=click.FloatRange(0, 86_400), default=0.0, metavar="S",
                 help="Seconds that canaries run before others follow."),
    click.option("--batch", default="100%", show_default=True, metavar="N|P%", help="Devices, or share, of a wave."),
    click.option("--parallel", type=click.IntRange(1, 64), default=4, show_default=True, metavar="N",
                 help="Devices at the same time."),
    click.option("--max-failures", type=click.IntRange(0), default=0, show_default=True, metavar="N",
                 help="When more fail, nothing new begins."),
    click.option("--retries", type=click.IntRange(0, 20), default=1, show_default=True, metavar="N",
                 help="More tries of a device that is out of reach."),
    click.option("--fresh", is_flag=True, help="Begin anew, where a roll-out of this bundle was cut off."),
)  # fmt: skip


def _packed(options: Sequence[Any], fields: Sequence[str]) -> Callable[[Any], Any]:
    """A decorator: the options, whose values are `fields` of FleetChoice, reach the command as one, `fleet`."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def called(**given: Any) -> Any:
            chosen = {key: given.pop(key) for key in fields}
            return function(fleet=FleetChoice(**chosen), **given)

        decorated: Any = called
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


_CHOOSING_FIELDS = ("inventory", "groups", "labels", "devices")
_ALL_FIELDS = tuple(FleetChoice.__dataclass_fields__)
choice_options = _packed(_CHOOSING, _CHOOSING_FIELDS)  # which devices
rollout_options = _packed((*_CHOOSING, *_GOING_ON), _ALL_FIELDS)  # and how a roll-out goes on


def roll_out(bundle: Bundle, fleet: FleetChoice, install: InstallOptions, *, dry_run: bool, as_json: bool) -> None:
    """Deploy to every device chosen, and end with the exit code that tells how it went."""
    inventory, devices = fleet.read()
    waves = plan_waves([device.name for device in devices], fleet.canary, parse_batch(fleet.batch, len(devices)))
    options = RolloutOptions(
        limits=Limits(
            parallel=fleet.parallel, max_failures=fleet.max_failures, soak_s=fleet.soak_s, retries=fleet.retries
        ),
        install=install,
        password=os.environ.get(PASSWORD_VARIABLE),
    )
    for device in devices:
        options.install_options(device)  # a password file that is missing shows before anything is done
    if dry_run:
        _show_plans(bundle, devices, waves, options, as_json)
        return
    bundle.verify()
    console = Console(stderr=as_json, highlight=False)
    with open_journal(inventory.path, bundle.id) as journal:
        if not fleet.fresh and journal.take_up():
            done = sum(device.name in journal.done({device.name: device}) for device in devices)
            are = "is" if done == 1 else "are"
            console.print(f"goes on with the roll-out of {journal.began}: {done} of {len(devices)} {are} done")
        with RolloutDisplay(console, waves, fleet.max_failures) as display:
            report = Rollout(bundle, devices, waves, options, journal, display).run()
    if as_json:
        click.echo(json.dumps({**asdict(report), "ok": report.is_whole}, indent=1))
    else:
        show_report(report)
    if not report.is_whole:
        sys.exit(_STOPPED if report.interrupted else DeployError.exit_code)


def show_report(report: RolloutReport) -> None:
    """Print how a roll-out ended: a sentence, then whoever is not as it should be, and why."""
    count = {
        result: sum(device.result == result for device in report.devices)
        for result in ("updated", "present", "failed", "unreachable", "untried")
    }
    done = count["updated"] + count["present"]
    words = f"Bundle {report.bundle} answers on {done} of {len(report.devices)} devices"
    click.echo(words + (f" ({count['present']} had it before)" if count["present"] else ""))
    if report.stopped:
        click.echo(f"The roll-out ended early: {report.stopped}. What was not begun is untouched")
    for device in report.devices:
        if device.result in ("failed", "unreachable"):
            kind = "failed" if device.result == "failed" else "out of reach"
            click.echo(f"\n{device.name}: {kind}; {_runs(device)}\n  {_indented(printable(device.why))}")
    for remark in dict.fromkeys(remark for device in report.devices for remark in device.remarks):
        names = ", ".join(device.name for device in report.devices if remark in device.remarks)
        click.echo(f"\nNote on {names}: {printable(remark)}")
    untried = [device for device in report.devices if device.result == "untried"]
    if names := ", ".join(device.name for device in untried if not device.why):
        click.echo(f"\nnot tried: {names}")
    if names := ", ".join(device.name for device in untried if device.why):
        click.echo(f"\ndone before, but not asked again: {names}")
    if not report.is_whole:
        goes_on = "goes on with it: what is done is only asked again" if done else "tries again"
        if count["failed"]:
            click.echo(f"\nOnce the cause is mended, the same command {goes_on}")
            click.echo("Where the bundle itself is at fault, that does not help: build a better one")
        else:
            click.echo(f"\nThe same command {goes_on}")


def _runs(device: DeviceReport) -> str:
    if device.runs is None:
        return "what runs there is not known"
    return f"bundle {device.runs} runs there" if device.runs else "nothing runs there"


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _show_plans(
    bundle: Bundle, devices: Sequence[FleetDevice], waves: Sequence[Wave], options: RolloutOptions, as_json: bool
) -> None:
    with ThreadPoolExecutor(max_workers=options.limits.parallel) as pool:
        plans = {plan.name: plan for plan in pool.map(lambda device: plan_device(bundle, device, options), devices)}
    if as_json:
        told = [
            {
                "wave": wave.name,
                "device": name,
                "steps": [asdict(step) for step in plans[name].steps],
                "why": plans[name].why,
            }
            for wave in waves
            for name in wave.devices
        ]
        click.echo(json.dumps({"bundle": bundle.id, "devices": told}, indent=1))
    else:
        table = Table("device", "wave", "plan", box=None, header_style="bold")
        for wave in waves:
            for name in wave.devices:
                table.add_row(name, wave.name, _in_short(plans[name]))
        Console(highlight=False).print(table)
        total = sum(bytes_to_send(plan.steps) for plan in plans.values())
        click.echo(f"{total / 1e6:.1f} MB to send in all; nothing was changed")
    if unfit := sum(bool(plan.why) for plan in plans.values()):
        click.echo(f"{unfit} of {len(plans)} device{'s' if len(plans) > 1 else ''} cannot take it", err=as_json)
        sys.exit(DeployError.exit_code)


def _in_short(plan: DevicePlan) -> str:
    if plan.why:
        return f"[red]cannot:[/red] {escape(printable(plan.why))}"
    if not any(step.action == "switch" for step in plan.steps):
        return "is there already: only asked"
    files = sum(step.action == "send" for step in plan.steps)
    return f"{bytes_to_send(plan.steps) / 1e6:.1f} MB in {files} file{'' if files == 1 else 's'}"
