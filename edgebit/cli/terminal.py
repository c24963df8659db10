"""Text and tables as a terminal may have them: control characters that others wrote are shown, not obeyed."""

import json
import re
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed; C1 too, which terminals obey
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # no UTF-8 can hold one
_WIDTH_IN_FILES = 300  # columns


def printable(text: str) -> str:
    r"""`text` with its control characters, except tab and line feed, as \x1b and the like."""
    escaped = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped)


def printable_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON whose strings have no control character: JSON itself lets DEL and C1 through.

    In one line, or as many as an `indent` makes.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_table(table: Table) -> None:
    """`table` on standard output: as wide as a terminal is, and in a file or pipe so wide that a row is one line."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_IN_FILES
    console.print(table)


def echo_piece(piece: str) -> None:
    """A piece of a local model's answer on standard output: printable on a terminal, as it is into a file or pipe."""
    click.echo(printable(piece) if sys.stdout.isatty() else piece, nl=False, color=True)  # else click takes some out
