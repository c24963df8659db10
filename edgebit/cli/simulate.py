"""edgebit simulate: the daemon's governor against a simulated device."""

from pathlib import Path

import click
from rich.progress import Progress
from rich.table import Column, Table

from edgebit.cli.terminal import print_table, printable_json
from edgebit.line_plot import write_picture
from edgebit.simulate.boards import BOARDS, CASES
from edgebit.simulate.compare import Scene, compare, picture, report, row
from edgebit.simulate.pool import Pool, compare_pools, pool_row
from edgebit.simulate.run import LIMIT_C, Work


@click.command()
@click.option("--case", type=click.Choice(list(CASES)), default="rpi5-bare", show_default=True, help="The device.")
@click.option("--ambient", type=click.FloatRange(-20, 60), default=25.0, show_default=True, help="Of the air, °C.")
@click.option("--minutes", type=click.IntRange(2, 1440), default=60, show_default=True, help="To simulate.")
@click.option("--threads", type=click.IntRange(1, 4), default=4, show_default=True, help="Of the engine.")
@click.option(
    "--requests",
    type=click.FloatRange(0.1, 10_000),
    metavar="PER_HOUR",
    help="At random moments.  [default: always one more]",
)
@click.option("--tokens", type=click.IntRange(1, 4096), default=256, show_default=True, help="Of an answer.")
@click.option("--beside", type=click.Choice(list(CASES)), help="A second device, which shares the requests in a pool.")
@click.option("--target", type=click.FloatRange(40, 100), help="governor.target_c  [default: the daemon's]")
@click.option("--stop", type=click.FloatRange(40, 110), help="governor.stop_c  [default: the daemon's]")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the requests' moments.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture, .svg or .png.")
@click.option("--sources", is_flag=True, help="Say where the device's figures come from, and which are assumed.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    case: str,
    ambient: float,
    minutes: int,
    threads: int,
    requests: float | None,
    tokens: int,
    beside: str | None,
    target: float | None,
    stop: float | None,
    seed: int,
    plot: Path | None,
    sources: bool,
    as_json: bool,
) -> None:
    """Compare what the governor's modes come to on a simulated device: speed, energy, seconds of heat.

    The daemon's own decide() runs, against a model of heat, power and firmware from published figures. It compares
    ways of control with each other; it does not say how warm your device gets.

    \b
    edgebit simulate --case rpi5-bare --ambient 30 --plot heat.svg
    edgebit simulate --case rpi5-closed --beside rpi5-fan --requests 240
    """
    if beside is not None:
        if requests is None or plot is not None or target is not None or stop is not None:
            raise click.UsageError("--beside goes with --requests, and without --plot, --target and --stop")
        work = Work(tokens=tokens, per_hour=requests, seed=seed)
        pool = Pool(cases=(case, beside), work=work, ambient_c=ambient, duration_s=60 * minutes, threads=threads)
        _print_pools(pool, as_json)
        return
    defaults = Scene(case=case)
    scene = Scene(
        case=case,
        ambient_c=ambient,
        work=Work(tokens=tokens, per_hour=requests, seed=seed),
        duration_s=60 * minutes,
        threads=threads,
        target_c=defaults.target_c if target is None else target,
        stop_c=defaults.stop_c if stop is None else stop,
    )
    if scene.stop_c <= scene.target_c:
        raise click.UsageError(f"--stop {scene.stop_c:g} must lie above --target {scene.target_c:g}")
    with Progress(transient=True, disable=as_json) as progress:
        task = progress.add_task("simulating", total=None)
        results = compare(scene, lambda name: progress.update(task, description=name))
    if plot is not None:
        write_picture(picture(scene, results), plot)
    if as_json:
        click.echo(printable_json(report(scene, results), indent=1))
        return
    click.echo(f"{CASES[case].words}, air of {ambient:g} °C, {minutes} minutes, BitNet 2B-4T, simulated")
    right = {"justify": "right", "no_wrap": True}
    names = ["tok/s", "p95 gap ms", "J/token", f"s >= {LIMIT_C:g} °C", "max °C", "answered", "refused", "moves"]
    table = Table("governor", *(Column(name, **right) for name in names), box=None, pad_edge=False)  # type: ignore[arg-type]
    for result in results:
        figures = row(result)
        keys = ("tok_s", "gap_p95_ms", "joules_per_token", "over_limit_s", "max_c", "answered", "refused", "moves")
        table.add_row(figures["control"], *(str(figures[key]) for key in keys))
    print_table(table)
    if sources:
        for name, words in {**dict(BOARDS[CASES[case].board].sources), "case": CASES[case].source}.items():
            click.echo(f"{name}: {words}")


def _print_pools(pool: Pool, as_json: bool) -> None:
    rows = [pool_row(result) for result in compare_pools(pool)]
    if as_json:
        click.echo(printable_json(rows, indent=1))
        return
    click.echo(
        f"a pool of {' and '.join(CASES[case].words for case in pool.cases)}, air of {pool.ambient_c:g} °C, simulated"
    )
    names = [
        "answered",
        "refused",
        "tok/s",
        "p50 s",
        "p95 s",
        "J/token",
        f"s >= {LIMIT_C:g} °C",
        "max °C",
        "by each",
        "s out",
    ]
    columns = [Column(name, justify="right", no_wrap=True) for name in names]
    table = Table("governor", *columns, box=None, pad_edge=False)
    for figures in rows:
        values = (" / ".join(map(str, value)) if isinstance(value, list) else str(value) for value in figures.values())
        table.add_row(*values)
    print_table(table)
