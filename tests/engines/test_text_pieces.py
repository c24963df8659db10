"""Text as it is shown while an answer comes: never half a character, never a part of a stop string."""

import pytest

from edgebit.engines.text_pieces import TextPieces


def decode(tokens):
    """Tokens are bytes."""
    return bytes(tokens).decode(errors="replace")


def run(text: bytes, *stops: str) -> tuple[list[str], bool, str]:
    """The pieces that were shown, whether a stop string ended it, and what came at the end."""
    stream, shown = TextPieces(decode, stops), []
    for token in text:
        piece, stopped = stream.push(token)
        shown.append(piece)
        if stopped:
            return shown, True, stream.finish()
    return shown, False, stream.finish()


def test_a_character_is_shown_once_it_is_whole():
    assert run("aä€".encode()) == (["a", "", "ä", "", "", "€"], False, "")


def test_what_stays_incomplete_is_shown_at_the_end():
    assert run(b"a\xe2\x82") == (["a", "", ""], False, "\ufffd")


@pytest.mark.parametrize(
    ("text", "stops", "wanted"),
    [
        (b"one END two", ["END"], ("one ", True)),
        (b"one EN", ["END"], ("one EN", False)),
        (b"one ENED", ["END"], ("one ENED", False)),
        (b"abab!", ["abc", "ab!"], ("ab", True)),
        (b"xyz", ["yz", "xyz"], ("", True)),
        (b"stop", [], ("stop", False)),
    ],
)
def test_a_stop_string_ends_the_text_before_it(text, stops, wanted):
    """A part of one that does not become whole is shown after all, once each."""
    shown, stopped, rest = run(text, *stops)

    assert ("".join(shown) + rest, stopped) == wanted
