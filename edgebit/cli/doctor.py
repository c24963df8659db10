"""edgebit doctor: what could be wrong on this machine and on a device, and how to mend it."""

import dataclasses
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from edgebit.cli.deploy import device_options, way
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.doctor.device import check_device
from edgebit.doctor.finding import Finding
from edgebit.doctor.machine import check_machine
from edgebit.doctor.onnx_runtime import check_onnx_folder, check_onnx_runtime
from edgebit.doctor.phone_libc import check_phone_libc
from edgebit.errors import EdgebitError

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "cyan"}


@click.command()
@click.argument("url", required=False)
@click.option(
    "--pull-bionic", is_flag=True, help="Copy the loader and libc of the Android at URL into this machine's cache."
)
@click.option(
    "--bundle",
    type=click.Path(exists=True, path_type=Path),
    help="With --pull-bionic: run this bundle's golden probes on them, emulated.",
)
@click.option(
    "--onnx",
    type=click.Path(exists=True, path_type=Path),
    metavar="FOLDER",
    help="What edgebit export onnx wrote: is it whole, and does the fast kernel run it here?",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_options
def command(
    url: str | None, pull_bionic: bool, bundle: Path | None, onnx: Path | None, as_json: bool, **device: Any
) -> None:
    """Look for whatever could be wrong on this machine and, with a URL, on the device there. Changes nothing.

    Each finding has its mend. Exit code 1 where something failed; what is only warned about concerns a part that you
    may not need.

    \b
    edgebit doctor
    edgebit doctor ssh://pi@raspberrypi.local
    edgebit doctor adb:// --pull-bionic --bundle chat.bundle
    edgebit doctor --onnx chat-onnx
    """
    if pull_bionic and url is None:
        raise click.UsageError("--pull-bionic needs the phone's URL: edgebit doctor adb:// --pull-bionic")
    if bundle is not None and not pull_bionic:
        raise click.UsageError("--bundle goes with --pull-bionic")
    findings = [*check_machine(), *check_onnx_runtime()]
    if onnx is not None:
        findings += check_onnx_folder(onnx)
    if url is not None:
        findings += check_device(url, way(**device))
        if pull_bionic:
            findings += check_phone_libc(url, way(**device), bundle)
    if as_json:
        ok = not any(finding.state == "fail" for finding in findings)
        body = {"ok": ok, "findings": [dataclasses.asdict(finding) for finding in findings]}
        click.echo(printable_json(body, indent=2))
    else:
        _print(findings)
    if any(finding.state == "fail" for finding in findings):
        sys.exit(EdgebitError.exit_code)


def _print(findings: list[Finding]) -> None:
    table = Table("", "state", "", box=None, header_style="bold")
    for group, members in groupby(findings, key=lambda finding: finding.group):
        table.add_row(Text(group, style="bold"), "", "")
        for finding in members:
            said = printable(finding.detail + (f"\n-> {finding.mend}" if finding.mend else ""))
            table.add_row(Text(f"  {finding.name}"), Text(finding.state, style=_STYLES[finding.state]), Text(said))
    print_table(table)
    counts = {state: sum(finding.state == state for finding in findings) for state in _STYLES}
    click.echo(", ".join(f"{count} {state}" for state, count in counts.items() if count))
