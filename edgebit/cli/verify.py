"""edgebit verify: check every byte, artifact and golden probe of a bundle or model file."""

import dataclasses
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from edgebit.bundle.archive import looks_like_bundle, open_bundle
from edgebit.checkpoint.model_file_checkpoint import is_model_file
from edgebit.cli.check_rows import STYLES, add_check, check_table
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import print_table, printable_json
from edgebit.cross.toolchain import BUILDERS
from edgebit.errors import BundleError
from edgebit.model_checks.model_file import check_model_file
from edgebit.verify import Extent, Group, Report, verify_bundle


@click.command()
@click.argument("path", metavar="BUNDLE", type=click.Path(exists=True, path_type=Path))
@click.option("--no-run", is_flag=True, help="Execute nothing of the bundle: for bundles of strangers.")
@click.option("--rebuild", is_flag=True, help="Compile its native files again, and compare: takes minutes.")
@click.option(
    "--builder",
    type=click.Choice([name for name in BUILDERS if name != "auto"]),
    help="With --rebuild: what compiles them, where it is not to be the one that the bundle names.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(path: Path, no_run: bool, rebuild: bool, builder: str | None, as_json: bool) -> None:
    """Check every byte, native file and golden probe of BUNDLE, a file or a folder; or of a model file.

    Probes run on this machine, or under qemu on a CPU of each ISA level; those of a model file on this machine's own
    engine, at each ISA level that it has. Ends with exit code 3 where a check failed.
    A check that could not run here says why.

    \b
    edgebit verify chat.bundle
    edgebit verify chat.bundle --rebuild
    edgebit verify chat.ebm
    """
    if builder and not rebuild:
        raise click.UsageError("--builder goes with --rebuild")
    if is_model_file(path) and not looks_like_bundle(path):
        if rebuild:
            raise click.UsageError(f"{path} is a model file: it has no native files to --rebuild")
        report = _verify_model_file(path, run=not no_run)
    else:
        report = _verify_bundle(path, Extent(run=not no_run, rebuild=rebuild, builder=builder))
    if as_json:
        click.echo(printable_json(_as_dict(report), indent=2))
    else:
        _print_table(path, report)
    if not report.ok:
        sys.exit(BundleError.exit_code)


def _verify_model_file(path: Path, *, run: bool) -> Report:
    with progress_bar() as show:
        checks = check_model_file(path, run=run, progress=show)
    return Report(None, None, (Group("model file", tuple(checks)),))


def _verify_bundle(path: Path, extent: Extent) -> Report:
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("reading", total=_size(path))
        return verify_bundle(path, extent, progress=lambda done: bar.advance(task, done))


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
