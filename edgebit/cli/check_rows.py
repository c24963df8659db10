"""Checks as rows of a table."""

from rich.table import Table
from rich.text import Text

from edgebit.checks import Check, Status
from edgebit.cli.terminal import printable

STYLES: dict[Status, str] = {"passed": "green", "failed": "bold red", "not run": "yellow"}


def check_table() -> Table:
    """An empty table for add_check()."""
    return Table("check", "result", "", box=None, header_style="bold")


def add_check(table: Table, check: Check, indent: str = "") -> None:
    """Name, result and detail, which may hold what a model's files say."""
    status = Text(check.status, style=STYLES[check.status])
    table.add_row(Text(f"{indent}{check.name}"), status, Text(printable(check.detail)))
