"""edgebit verify: check every byte, artifact and golden probe of a bundle."""

import dataclasses
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from edgebit.bundle.archive import open_bundle
from edgebit.cli.check_rows import STYLES, add_check, check_table
from edgebit.cli.terminal import print_table, printable_json
from edgebit.cross.toolchain import BUILDERS
from edgebit.errors import BundleError
from edgebit.verify import Extent, Report, verify_bundle


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--no-run", is_flag=True, help="Execute nothing of the bundle: for bundles of strangers.")
@click.option("--rebuild", is_flag=True, help="Compile its native files again, and compare: takes minutes.")
@click.option(
    "--builder",
    type=click.Choice([name for name in BUILDERS if name != "auto"]),
    help="With --rebuild: what compiles them, where it is not to be the one that the bundle names.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(bundle: Path, no_run: bool, rebuild: bool, builder: str | None, as_json: bool) -> None:
    """Check every byte, native file and golden probe of BUNDLE, a file or a folder.

    Probes run on this machine, or under qemu on a CPU of each ISA level. Ends with exit code 3 where a check failed.
    A check that could not run here says why.

    \b
    edgebit verify chat.bundle
    edgebit verify chat.bundle --rebuild
    """
    if builder and not rebuild:
        raise click.UsageError("--builder goes with --rebuild")
    extent = Extent(run=not no_run, rebuild=rebuild, builder=builder)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("reading", total=_size(bundle))
        report = verify_bundle(bundle, extent, progress=lambda done: bar.advance(task, done))
    if as_json:
        click.echo(printable_json(_as_dict(report), indent=2))
    else:
        _print_table(bundle, report)
    if not report.ok:
        sys.exit(BundleError.exit_code)


def _size(path: Path) -> int | None:
    try:
        return sum(entry.size for entry in open_bundle(path).manifest.files.values())
    except BundleError:
        return None  # verify_bundle() says why


def _print_table(path: Path, report: Report) -> None:
    table = check_table()
    for group in report.groups:
        table.add_row(Text(group.title, style="bold"), "", "")
        for check in group.checks:
            add_check(table, check, indent="  ")
    print_table(table)
    counts = {status: sum(check.status == status for check in report.checks) for status in STYLES}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    identity = f", bundle {report.bundle_id}" if report.bundle_id else ""
    click.echo(f"{path}{identity}: {said}")


def _as_dict(report: Report) -> dict[str, object]:
    return {
        "ok": report.ok,
        "bundle": report.bundle_id,
        "name": report.manifest.name if report.manifest else None,
        "checks": [
            {"group": group.title, **dataclasses.asdict(check)} for group in report.groups for check in group.checks
        ],
    }
