"""Text and tables as a terminal may have them: control characters that others wrote are shown, not obeyed."""

import json
import re
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed; C1 too, which terminals obey
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # no UTF-8 can hold one
_WIDTH_IN_FILES = 300  # columns
_LONG_WORD = 20  # a longer one, such as a path, may be broken where its column may wrap
_COLUMN_GAP = 2  # between columns, rich's own


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
    """`table` on standard output, with nothing cut: in a file or pipe it is so wide that a row is one line.

    On a terminal it is as wide as that; where the columns that must not wrap leave no room, a row is some lines.
    """
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_IN_FILES
    for column in table.columns:
        column.overflow = "fold"  # rich's own default cuts
    if _least_width(table, console) <= console.width:
        console.print(table)
        return
    heads = [column.header for column in table.columns]
    for number, row in enumerate(zip(*(column.cells for column in table.columns), strict=True)):
        lines = Table.grid(Column(style="bold", no_wrap=True), Column(overflow="fold"), padding=(0, 2))
        for head, cell in zip(heads, row, strict=True):
            lines.add_row(head, cell)
        console.print(*([""] if number else []), lines, sep="\n")


def _least_width(table: Table, console: Console) -> int:
    """Columns of the terminal that `table` needs: all of what must not wrap, and else the longest word."""
    endless = console.options.update(width=1 << 20)
    width = 0 if table.pad_edge else -_COLUMN_GAP
    for column in table.columns:
        sizes = [console.measure(cell, options=endless) for cell in (column.header, *column.cells)]
        whole, word = max(size.maximum for size in sizes), max(size.minimum for size in sizes)
        width += (whole if column.no_wrap else min(word, _LONG_WORD)) + _COLUMN_GAP
    return width


def echo_piece(piece: str) -> None:
    """A piece of a local model's answer on standard output: printable on a terminal, as it is into a file or pipe."""
    click.echo(printable(piece) if sys.stdout.isatty() else piece, nl=False, color=True)  # else click takes some out
