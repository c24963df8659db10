"""What others wrote, on a terminal and in a pipe."""

import io
import json
import sys

import pytest

from edgebit.cli.terminal import echo_piece, printable, printable_json


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
