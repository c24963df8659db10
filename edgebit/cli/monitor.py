"""`edgebit monitor`: a live view of devices over MQTT."""

import sys
import time
from pathlib import Path

import click
from rich.console import Console

from edgebit.cli.broker_options import Connecting, DeviceName, broker_options
from edgebit.cli.span import Span
from edgebit.cli.terminal import printable_json
from edgebit.errors import NoAnswerError
from edgebit.line_plot import write_picture
from edgebit.monitor.feed import Feed, PastReader
from edgebit.monitor.fleet import SORTINGS, Fleet, ordered
from edgebit.monitor.history import ask_history, picture
from edgebit.monitor.keys import Choice
from edgebit.monitor.report import report
from edgebit.monitor.screen import Screen
from edgebit.monitor.view import Scene, overview
from edgebit.mqtt_client.device_states import RETAINED_WAIT_S, known_words

LISTEN_S = 3.0  # for one frame
REFRESH_S = 1.0
WIDTH_IN_FILES = 300
_CHECK_S = 0.1


@click.command()
@click.option(
    "--device",
    "names",
    type=DeviceName(),
    multiple=True,
    metavar="NAME",
    help="Only this one. May be given several times.",
)
@click.option("--sort", type=click.Choice(list(SORTINGS)), default="name", show_default=True, help="The order.")
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each device, at each interval.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 86400),
    metavar="S",
    help=f"Between two frames, {REFRESH_S:g} s; with --once, how long to listen at most, {LISTEN_S:g} s.",
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw a device's history, .svg or .png.")
@click.option("--since", "since_s", type=Span(), default="24h", show_default=True, help="How far back --plot goes.")
@broker_options
def command(
    names: tuple[str, ...],
    sort: str,
    once: bool,
    as_json: bool,
    interval_s: float | None,
    plot: Path | None,
    since_s: float,
    connecting: Connecting,
) -> None:
    """Watch devices: temperature, clock, throttling, power, speed, queue, errors and alerts.

    On a terminal s changes the order, the arrow keys select a device, Enter shows all of it, q quits. Elsewhere a table
    is printed at each interval. A device tells its temperature, speed and queue at once, the rest at its own interval.

    \b
    edgebit monitor --broker mqtt://broker.local --sort temp
    edgebit monitor --device pi5 --plot pi5.svg --since 24h
    edgebit monitor --once --json | jq 'select(.stale) | .device'
    """
    if plot is not None:
        if len(names) != 1:
            raise click.UsageError("--plot draws one device: edgebit monitor --device NAME --plot FILE")
        with connecting.connect() as client:
            write_picture(picture(ask_history(client, names[0], since_s)), plot)
        return
    fleet = Fleet()
    with Feed(connecting.connect, fleet, names):
        if once:
            _listen(fleet, names, interval_s or LISTEN_S)
            _check(fleet, names, connecting)
            _print(fleet, sort, as_json)
        elif as_json or not (console := Console()).is_terminal:
            _print_on(fleet, sort, as_json, interval_s or REFRESH_S)
        else:
            _watch(console, fleet, connecting, Choice(sort=sort), interval_s or REFRESH_S)


def _watch(console: Console, fleet: Fleet, connecting: Connecting, choice: Choice, refresh_s: float) -> None:
    def scene() -> Scene:
        return Scene(
            devices=fleet.devices(),
            broker=connecting.broker,
            now=time.monotonic(),
            trouble=fleet.trouble,
            left_out=fleet.left_out,
        )

    with PastReader(connecting.connect, fleet) as past:
        Screen(console, scene, past.want, refresh_s).run(choice)


def _listen(fleet: Fleet, names: tuple[str, ...], most_s: float) -> None:
    """Until all that are wanted have told all, or the time is over."""
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < most_s:
        devices = fleet.devices()
        told = all(device.measured is not None for device in devices if device.availability == "online")
        if devices and told and (len(devices) == len(set(names)) or passed_s >= RETAINED_WAIT_S):
            return
        time.sleep(_CHECK_S)


def _check(fleet: Fleet, names: tuple[str, ...], connecting: Connecting) -> None:
    known = {device.name for device in fleet.devices()}
    if missing := sorted(set(names) - known):
        with connecting.connect() as client:
            others = known_words(device.name for device in client.devices())
        raise NoAnswerError(f"the broker {connecting.broker} knows no device {' and '.join(missing)}. {others}")
    if not known:
        raise NoAnswerError(f"the broker {connecting.broker} knows no device. Deploy a bundle: edgebit deploy --help")


def _print_on(fleet: Fleet, sort: str, as_json: bool, interval_s: float) -> None:
    """For as long as somebody reads."""
    trouble = ""
    while True:
        time.sleep(interval_s)
        if fleet.trouble != trouble and fleet.trouble:
            click.echo(fleet.trouble, err=True)
        trouble = fleet.trouble
        _print(fleet, sort, as_json)
        if not as_json:
            click.echo()
        sys.stdout.flush()


def _print(fleet: Fleet, sort: str, as_json: bool) -> None:
    devices, now = ordered(fleet.devices(), sort), time.monotonic()
    if as_json:
        for device in devices:
            click.echo(printable_json(report(device, now)))
        return
    console = Console()
    width = console.width if console.is_terminal else WIDTH_IN_FILES
    for line in overview(devices, now, width):
        shown = line if console.is_terminal else line.plain.rstrip()
        console.print(shown, highlight=False, markup=False, soft_wrap=True)
