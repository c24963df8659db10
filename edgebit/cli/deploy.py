"""`edgebit deploy`: put a bundle on a device and switch its daemon over."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from edgebit.bundle.archive import open_bundle
from edgebit.bundle.manifest import Manifest
from edgebit.cli.broker_options import broker_password
from edgebit.cli.rollout import FleetChoice, roll_out, rollout_options
from edgebit.daemon.contract.topics import is_device, segment_of
from edgebit.deploy.install import install
from edgebit.deploy.outcome import Outcome
from edgebit.deploy.plan import (
    CHECK_TIMEOUT_S,
    SERVICES,
    SLOW_S,
    InstallOptions,
    KnownKeys,
    Step,
    bundle_bytes,
    bytes_to_send,
    default_service,
    duration,
    plan_deploy,
)
from edgebit.device_probe import DeviceState, probe
from edgebit.errors import DeployError
from edgebit.keys import find_public_key, list_keys
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.transport import Options, open_transport, seconds_to_send
from edgebit.transport import Progress as Told

_ASK_DEFAULTS = ("", "mqtt://localhost", "mqtt://localhost:1883")  # what `edgebit ask` takes without --broker


def device_options(function: Any) -> Any:
    """The options that every command on a device has."""
    for option in (
        click.option(
            "--ssh-config", type=click.Path(dir_okay=False, path_type=Path), help="OpenSSH configuration file."
        ),
        click.option(
            "--serial-password-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="First line: the password at a serial console.  [default: EDGEBIT_SERIAL_PASSWORD, else a prompt]",
        ),
        click.option("--ssh-option", "ssh_options", multiple=True, metavar="NAME=VALUE", help="Passed to ssh as -o."),
        click.option("--root", help="Folder on the device.  [default: ~/.local/share/edgebit]"),
    ):
        function = option(function)
    return function


def way(
    root: str | None, ssh_options: tuple[str, ...], ssh_config: Path | None, serial_password_file: Path | None
) -> Options:
    """The options as open_transport() takes them."""
    return Options(root=root, ssh_config=ssh_config, ssh_options=ssh_options, serial_password_file=serial_password_file)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--to", "url", metavar="URL", help="ssh://[USER@]HOST, adb://SERIAL, serial://PORT, local:FOLDER ...")
@click.option("--mqtt", metavar="URL", help="The device's broker: mqtt://[USER@]HOST[:PORT] or mqtts://.")
@click.option(
    "--mqtt-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="First line: the password.",
)
@click.option("--device-name", help="The device's name in topics.  [default: its host name]")
@click.option("--service", type=click.Choice(SERVICES), help="What keeps the daemon running.")
@click.option("--timeout", "timeout_s", type=click.IntRange(1, 86_400), default=int(CHECK_TIMEOUT_S), show_default=True,
              help="Seconds that the new bundle has to answer.")  # fmt: skip
@click.option("--stay-up", "stay_up_s", type=click.FloatRange(0, 3600), default=3.0, show_default=True,
              help="Seconds that it must stay up after its first answer, and then answer again.")  # fmt: skip
@click.option("--min-tok-s", type=click.FloatRange(0), default=0.0, help="Take it back if it decodes more slowly.")
@click.option("--max-rss", "rss_max_mib", type=click.FloatRange(0), default=0.0, metavar="MIB",
              help="Take it back if the daemon holds more memory, the mapped model aside.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the plan and the bytes to send, and change nothing.")
@click.option("--force", is_flag=True, help="Also a bundle that is there already, or was taken back before.")
@click.option("--yes-slow", is_flag=True, help="Send also what takes more than an hour over a serial line.")
@click.option("--trust", multiple=True, metavar="KEY", help="Refuse what this key did not sign (`edgebit keys`).")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@device_options
@rollout_options
def command(
    bundle: Path,
    url: str | None,
    mqtt: str | None,
    mqtt_password_file: Path | None,
    device_name: str | None,
    service: str | None,
    timeout_s: float,
    stay_up_s: float,
    min_tok_s: float,
    rss_max_mib: float,
    dry_run: bool,
    force: bool,
    yes_slow: bool,
    trust: tuple[str, ...],
    as_json: bool,
    fleet: FleetChoice,
    **device: Any,
) -> None:
    """Copy BUNDLE to a device, or to many of an inventory, and switch its daemon over.

    Only files that the device lacks are sent. The bundle before stays until the new one has answered over MQTT, and
    comes back by itself if it does not. A device without python3 gets edgebit-run and the model alone: no daemon.

    \b
    edgebit deploy chat.bundle --to ssh://pi@raspberrypi.local --mqtt mqtt://broker.local
    edgebit deploy chat.bundle --to "serial:///dev/ttyUSB0?user=pi" --mqtt mqtt://broker.local
    edgebit deploy chat.bundle --to adb://
    edgebit deploy chat.bundle --to local:./device --mqtt mqtt://localhost --device-name here
    edgebit deploy chat.bundle --group kitchen --canary 1 --batch 25% --max-failures 2
    """
    if (url is None) != fleet.is_made:
        raise click.UsageError(
            "name one device with --to URL, or those of an inventory with --group, --label, --device"
        )
    if url is not None and fleet != FleetChoice():
        raise click.UsageError("with --to there is one device: leave out what is about many")
    content = open_bundle(bundle)
    options = InstallOptions(
        force=force,
        check_timeout_s=timeout_s,
        stay_up_s=stay_up_s,
        min_tok_s=min_tok_s,
        rss_max_mib=rss_max_mib,
        yes_slow=yes_slow,
        known=known_keys(trust),
    )
    if url is None:
        if mqtt or mqtt_password_file or device_name or service or any(device.values()):
            raise click.UsageError("how each device of an inventory is reached and set up stands in it (docs/fleet.md)")
        roll_out(content, fleet, options, dry_run=dry_run, as_json=as_json)
        return
    settings = mqtt_settings(mqtt, mqtt_password_file, device_name)
    options = replace(options, settings=settings, service=service or default_service(url))
    with open_transport(url, way(**device)) as transport:
        if dry_run:
            state = probe(transport)
            steps = plan_deploy(content, state, options)
            show_plan(content.manifest, steps, state, seconds_to_send(transport, bytes_to_send(steps)), as_json)
            return
        with Reporter(Console(stderr=as_json, highlight=False)) as reporter:
            outcome = install(content, transport, options, reporter, reporter.plan)
    show_outcome(outcome, as_json, url)


def known_keys(trust: Sequence[str]) -> KnownKeys:
    """Those of --trust, and then no others, or all that this machine knows."""
    if trust:
        return KnownKeys({text: find_public_key(text) for text in trust}, demanded=True)
    return KnownKeys({key.name: key.public for key in list_keys()})


def mqtt_settings(url: str | None, password_file: Path | None, device_name: str | None) -> dict[str, dict[str, Any]]:
    """The settings for edgebitd.toml that the options mean.

    The password comes from its file, the environment, the URL, or a prompt where the URL has a user.
    """
    settings: dict[str, dict[str, Any]] = {}
    broker = parse_broker_url(url) if url else None
    if password_file and (broker is None or broker.user is None):
        raise DeployError("--mqtt-password-file goes with --mqtt mqtt://USER@HOST")
    if broker is not None:
        settings["mqtt"] = {"url": str(broker)}
        if broker.user is not None:
            option, exposed_by = "--mqtt-password-file", "--mqtt"
            password = broker_password(
                broker, password_file, file_option=option, exposed_by=exposed_by, error=DeployError
            )
            settings["mqtt"] |= {"user": broker.user, "password": password}
    if device_name:
        if not is_device(device_name):
            raise DeployError(
                f"--device-name {device_name!r} is not 1 to 64 of a-z 0-9 _ . - (try {segment_of(device_name)!r})"
            )
        settings["device"] = {"name": device_name}
    return settings


def sizes(manifest: Manifest, steps: list[Step], state: DeviceState) -> str:
    """What a plan sends, of how much, and how much room there is."""
    of = f"{bytes_to_send(steps) / 1e6:.1f} of {bundle_bytes(manifest) / 1e6:.1f} MB"
    return f"{of} to send, {state.free_bytes / 1e6:.0f} MB free on the device"


def show_plan(manifest: Manifest, steps: list[Step], state: DeviceState, seconds: float | None, as_json: bool) -> None:
    """Print what would be done, and how long sending takes where the way knows that."""
    if as_json:
        plan = {
            "bytes_to_send": bytes_to_send(steps),
            "bundle_bytes": bundle_bytes(manifest),
            "seconds_to_send": seconds,
            "steps": [asdict(step) for step in steps],
        }
        click.echo(json.dumps(plan, indent=1))
        return
    for step in steps:
        click.echo(f"would {step.line}")
    click.echo(f"{sizes(manifest, steps, state)}; nothing was changed")
    if seconds:
        slow = ", which wants --yes-slow" if seconds > SLOW_S else ""
        click.echo(f"sending takes about {duration(seconds)}{slow}")


def by_hand(url: str, command: str) -> str:
    """A command line of the device as it is typed on this machine, for a device that was reached over `url`."""
    scheme, _, place = url.partition("://")
    place = place.partition("/")[0]
    if scheme == "ssh":
        login, _, port = place.partition(":")
        return shlex.join(["ssh", *(["-p", port] if port else []), login, command])
    if scheme == "adb" and "@" not in place:
        return shlex.join(["adb", *(["-s", place] if place else []), "shell", command])
    return command


def show_outcome(outcome: Outcome, as_json: bool, url: str) -> None:
    """Print how it ended."""
    if as_json:
        click.echo(json.dumps(asdict(outcome), indent=1))
        return
    if outcome.probes:
        click.echo(f"{outcome.probes} golden probes equal bit for bit on {outcome.isa}")
    rate = f" at {outcome.wire_bytes / outcome.send_s / 1e6:.1f} MB/s" if outcome.send_s > 0.5 else ""
    files = f"{outcome.sent_files} file{'' if outcome.sent_files == 1 else 's'}"
    deflated = f", {outcome.wire_bytes / 1e6:.1f} MB on the way" if outcome.wire_bytes < outcome.sent_bytes else ""
    of = f"{outcome.sent_bytes / 1e6:.1f} of {outcome.bundle_bytes / 1e6:.1f} MB"
    click.echo(f"sent {of} ({files}{deflated}){rate}; {outcome.total_s:.1f} s in all")
    if outcome.run_with:
        click.echo(f"Bundle {outcome.id} is in place; no daemon runs there. Try: {by_hand(url, outcome.run_with)}")
        return
    at = "" if outcome.broker in _ASK_DEFAULTS else f"--broker {shlex.quote(outcome.broker)} "
    click.echo(f'Bundle {outcome.id} answers. Try: edgebit ask {at}--device {outcome.device} "Why is the sky blue?"')


class Reporter:
    """Prints a line a step, and a bar for the file on its way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._whole_lines = not console.is_terminal  # a file or a program gets them as they are
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Reporter":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def plan(self, manifest: Manifest, steps: list[Step], state: DeviceState) -> None:
        """What will be done, before anything is touched."""
        self._console.print(f"Plan: {sizes(manifest, steps, state)}", markup=False, soft_wrap=self._whole_lines)
        for number, step in enumerate(steps, 1):
            self._console.print(f"{number:3}. {step.line}", markup=False, soft_wrap=self._whole_lines)
        self._console.print()

    def step(self, step: Step) -> None:
        """A step begins."""
        self._finish_bar()
        self._console.print(step.line, markup=False, soft_wrap=self._whole_lines)

    def remark(self, text: str) -> None:
        """Something the user should know."""
        self._console.print(f"Note: {text}", markup=False, soft_wrap=self._whole_lines, style="yellow")

    def sending(self, name: str, size: int) -> Told:
        """A file is being sent."""
        self._finish_bar()
        self._task = task = self._bars.add_task(name, total=size)
        return lambda sent: self._bars.advance(task, sent)

    def _finish_bar(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
