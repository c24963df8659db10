"""`edgebit metrics`: the figures of a device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Column, Table

from edgebit.cli.broker_options import Connecting, DeviceName, broker_options
from edgebit.cli.span import Span
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.daemon.monitoring.console import read_folder
from edgebit.daemon.monitoring.export import FORMATS
from edgebit.daemon.monitoring.export import Table as Figures
from edgebit.daemon.monitoring.quantities import QUANTITIES
from edgebit.daemon.monitoring.summary import HEAD, cells, shown, summary_of
from edgebit.metrics import Now, ask_table, hear_now
from edgebit.monitor.published import figure, objects, words

_SINCE = click.option("--since", "since_s", type=Span(), default="1h", show_default=True, help="How far back.")


def _one_form(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """One format of those there are. Raises click.UsageError for a second."""
    name = str(parameter.name)
    if wanted and (other := context.meta.setdefault(_FORM, name)) != name:
        raise click.UsageError(f"--{other} and --{name} are two formats: give one")


def _form(name: str, words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option of a format, of which one may be given; _form_of() says which."""
    return click.option(f"--{name}", name, is_flag=True, expose_value=False, callback=_one_form, help=words)


def _form_of(otherwise: str) -> str:
    return str(click.get_current_context().meta.get(_FORM, otherwise))


_FORM = f"{__name__}.form"
_JSON = _form("json", "Print JSON.")


def _source(command: Callable[..., None]) -> Callable[..., None]:
    """Where the rows come from: a device over MQTT, or a folder."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    words = "A copy of a device's state/history, instead of asking it."
    command = click.option("--from", "folder", type=folder, metavar="FOLDER", help=words)(broker_options(command))
    return click.option(
        "--device", type=DeviceName(), metavar="NAME", help="The device's name (edgebit ask --list shows them)."
    )(command)


@click.group()
def command() -> None:
    """Show, sum up and export the figures of a device: speed, requests, memory, heat, power.

    \b
    edgebit metrics show --device pi5
    edgebit metrics export --device pi5 --since 24h --csv --out pi5.csv
    """


@command.command(short_help="The figures that a device tells next.")
@click.option(
    "--device",
    type=DeviceName(),
    required=True,
    metavar="NAME",
    help="The device's name (edgebit ask --list shows them).",
)
@_JSON
@_form("prometheus", "Print Prometheus' text, as its own port has it.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1, 86400), default=65, show_default=True, help="In seconds."
)
@broker_options
def show(device: str, timeout_s: float, connecting: Connecting) -> None:
    """Wait for the figures that a device tells next, each 30 s unless it is set otherwise, and print them.

    Counts are totals since the daemon's start; `summary` and `export` have those of a time.

    \b
    edgebit metrics show --device pi5 --json | jq .t_soc
    """
    with connecting.connect() as client:
        now = hear_now(client, device, timeout_s)
    form = _form_of("table")
    if form == "json":
        click.echo(printable_json(now.metrics, indent=1))
    elif form == "prometheus":
        click.echo(printable(now.prometheus()), nl=False)
    else:
        _print_now(now)


@command.command(short_help="What a time came to: mean, least, most.")
@_source
@_SINCE
@_JSON
def summary(device: str | None, folder: Path | None, since_s: float, connecting: Connecting) -> None:
    """Print what a time came to: mean, least, 95th percentile and greatest of levels, sums of counts.

    \b
    edgebit metrics summary --device pi5 --since 24h
    edgebit metrics summary --from state/history --since 24h
    """
    found = summary_of(_rows(device, folder, {"since_s": since_s, "step_s": 0}, connecting))
    if _form_of("table") == "json":
        click.echo(printable_json(found.to_json(), indent=1))
        return
    columns = (Column(name, no_wrap=True, justify="left" if place < 2 else "right") for place, name in enumerate(HEAD))
    table = Table(*columns, box=None, pad_edge=False)
    for line in cells(found.lines):
        table.add_row(*map(printable, line))
    print_table(table)


@command.command()
@_source
@_SINCE
@click.option("--step", type=Span(least_s=1), help="Length of a row.  [default: 1m]")
@click.option("--raw", is_flag=True, help="Rows as they were recorded, instead of --step.")
@click.option("--fields", metavar="NAME,...", help="Only these figures.")
@_form("csv", "CSV, the default.")
@_JSON
@_form("prometheus", "OpenMetrics with times, for promtool.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of standard output.")
def export(
    device: str | None,
    folder: Path | None,
    since_s: float,
    step: float | None,
    raw: bool,
    fields: str | None,
    out: Path | None,
    connecting: Connecting,
) -> None:
    """Write rows of a device's history. Times are its own clock's, in Unix seconds.

    \b
    edgebit metrics export --device pi5 --since 24h --csv --out pi5.csv
    edgebit metrics export --device pi5 --prometheus --out pi5.om
    promtool tsdb create-blocks-from openmetrics pi5.om data/
    """
    if raw and step is not None:
        raise click.UsageError("--raw goes without --step")
    asked: dict[str, Any] = {"since_s": since_s, "step_s": 0 if raw else step or 60}
    if fields is not None:
        asked["fields"] = [name.strip() for name in fields.split(",")]
    text = FORMATS[_form_of("csv")](_rows(device, folder, asked, connecting))
    if out is None:
        click.echo(printable(text), nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--out {out} cannot be written: {error.strerror}") from error


def _rows(device: str | None, folder: Path | None, asked: dict[str, Any], connecting: Connecting) -> Figures:
    if (device is None) == (folder is None):
        raise click.UsageError("one of --device NAME and --from FOLDER is needed")
    if folder is not None:
        return read_folder(folder, asked, here=False)
    assert device is not None
    with connecting.connect() as client:
        rows = ask_table(client, device, asked)
    if not rows.whole:
        click.echo(f"{device} has more rows than are read at once: these are the oldest of that time", err=True)
    return rows.table


def _print_now(now: Now) -> None:
    table = Table("figure", Column("now", justify="right"), "unit", "", box=None, pad_edge=False)
    for quantity in QUANTITIES:
        value = figure(now.metrics.get(quantity.name))
        if value is not None:
            since = ", since the daemon's start" if quantity.kind == "count" else ""
            table.add_row(quantity.name, shown(value), quantity.unit, quantity.meaning + since)
    print_table(table)
    for alert in objects(now.metrics.get("alerts")):
        click.echo(f"alert {words(alert.get('name'))}, {words(alert.get('severity'))}: {words(alert.get('message'))}")
