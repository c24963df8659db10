"""`edgebit adapter inspect`: what an adapter file holds."""

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edgebit.bundle.adapter_format import ENCODINGS, AdapterFile, StoredPair, read_adapter_file
from edgebit.cli.terminal import print_table, printable, printable_json

_TYPES = {encoding: name for name, encoding in ENCODINGS.items()}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: Path, as_json: bool) -> None:
    """Show what an adapter file holds.

    Name, base, and of each projection shape, rank and scale; its sums and sizes are checked first.

    \b
    edgebit adapter inspect garden.adapter
    edgebit adapter inspect garden.adapter --json
    """
    facts = describe(read_adapter_file(file), file.stat().st_size)
    if as_json:
        click.echo(printable_json(facts, indent=2))
        return
    click.echo(f"{printable(str(file))}: adapter {facts['name']}, {facts['bytes']:,} bytes")
    click.echo(f"  for weights {facts['base']}")
    table = Table("layer", "projection", "shape", "rank", "type", "scale", "bytes", box=None, header_style="bold")
    for pair in facts["pairs"]:
        table.add_row(
            str(pair["layer"]), pair["projection"], f"{pair['rows']} x {pair['columns']}", str(pair["rank"]),
            pair["type"], f"{pair['scale']:g}", f"{pair['bytes']:,}",
        )  # fmt: skip
    print_table(table)


def describe(adapter: AdapterFile, size: int) -> dict[str, Any]:
    """The facts of the file, for JSON."""
    return {
        "name": adapter.name,
        "bytes": size,
        "base": f"{adapter.base:016x}",
        "pairs": [_pair_facts(pair) for pair in adapter.pairs],
    }


def _pair_facts(pair: StoredPair) -> dict[str, Any]:
    return {
        "layer": pair.layer,
        "projection": pair.role.name.lower(),
        "rows": pair.rows,
        "columns": pair.columns,
        "rank": pair.rank,
        "type": _TYPES[pair.encoding],
        "scale": pair.scale,
        "bytes": sum(pair.sizes),
    }
