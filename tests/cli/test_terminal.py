"""What others wrote, on a terminal and in a pipe."""

import io
import json
import sys

import pytest
from rich.table import Column, Table

from edgebit.cli.terminal import echo_piece, print_table, printable, printable_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc é€𝄞", "a\tb\nc é€𝄞"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b2J\x7f\r\x00", "\\x9b2J\\x7f\\x0d\\x00"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_control_characters_are_shown(text, shown):
    """Tab, line feed and every other character stay; the result always has a form in UTF-8."""
    assert printable(text) == shown
    assert shown.encode()


def test_json_stays_what_it_was():
    """Readable, the same when it is read, and with nothing in it that a terminal obeys."""
    value = {"é": "a\x1b\x9b\x7f\n"}
    text = printable_json(value)
    assert json.loads(text) == value and "é" in text
    assert not {"\x1b", "\x9b", "\x7f", "\n"} & set(text)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "expected"), [(Terminal, "\\x1b[2J"), (io.StringIO, "\x1b[2J")])
def test_a_file_gets_what_the_model_said(monkeypatch, stream, expected):
    """Only a terminal obeys; a file is to hold every character."""
    monkeypatch.setattr(sys, "stdout", stream())
    echo_piece("\x1b[2J")
    assert sys.stdout.getvalue() == expected


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard output a terminal of so many columns that obeys nothing."""

    def make(columns):
        for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": str(columns)}.items():
            monkeypatch.setenv(name, value)

    return make


KEY = "RWS" + 50 * "k"
PATH = "/home/somebody/" + 40 * "p"


def a_table():
    table = Table(Column("name", no_wrap=True), Column("key", no_wrap=True), "file", "words", box=None)
    for name in ("home", "work"):
        table.add_row(name, KEY, PATH, "several words that may wrap")
    return table


def test_a_row_in_a_pipe_is_one_line(capsys):
    print_table(a_table())

    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["home", KEY, PATH, "several", "words", "that", "may", "wrap"]


def test_what_may_wrap_is_folded_and_never_cut(terminal, capsys):
    """A path is broken where the terminal ends, and nothing of it is missing."""
    terminal(110)
    print_table(a_table())

    said = capsys.readouterr().out
    assert said.count(KEY) == 2 and "…" not in said
    assert "".join(said.split()).count("p") == 2 * 40 + 2  # of the path, and of "wrap"
    assert max(map(len, said.splitlines())) <= 110


def test_a_row_becomes_lines_where_its_columns_do_not_fit(terminal, capsys):
    """The key stays whole, to be copied."""
    terminal(64)
    print_table(a_table())

    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines() if KEY in line] == [["key", KEY]] * 2
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 64
