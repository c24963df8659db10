"""Incremental text: whole characters, stop strings and U+FFFD, held to Python's own decoder after every token."""

from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.checkpoint.tokenizer import read_tokenizer
from edgebit.errors import EngineError
from edgebit.runtime.text_stream import TextStream
from edgebit.runtime.tokenizer import Tokenizer

TINY = Path(__file__).resolve().parent.parent / "reference" / "bitnet-packed" / "tokenizer.json"
EOT = 509


@pytest.fixture(scope="module")
def tokenizer(native):
    with Tokenizer.from_section(native, read_tokenizer(TINY).section()) as tokenizer:
        yield tokenizer


def byte_tokens(tokenizer, data):
    """The tokens of single bytes."""
    return [tokenizer.encode(bytes([byte]))[0] for byte in data]


def stream(tokenizer, tokens, stops=()):
    """The pieces that pushing the tokens gives, with finish()'s, and whether a stop string ended it."""
    pieces, stopped = [], False
    with TextStream(tokenizer, list(stops)) as text:
        for token in tokens:
            piece, stopped = text.push(token)
            pieces.append(piece)
        pieces.append(text.finish())
    return pieces, stopped


def shown_so_far(data, stops):
    """What a stream must have shown after `data`, and whether a stop string ended it."""
    for end in range(1, len(data) + 1):
        complete = [stop for stop in stops if data[:end].endswith(stop)]
        if complete:
            return data[: end - max(map(len, complete))].decode("utf-8", "replace"), True
    held = max((n for stop in stops for n in range(1, len(stop)) if data.endswith(stop[:n])), default=0)
    if held:  # a stop string begins with a whole character, so what is before it is complete or never will be
        return data[: len(data) - held].decode("utf-8", "replace"), False
    cut = max((n for n in (1, 2, 3) if n <= len(data) and begins_a_character(data[-n:])), default=0)
    return data[: len(data) - cut].decode("utf-8", "replace"), False


@cache
def begins_a_character(part):
    """Whether more bytes can make one character of these, asked of Python's strict decoder."""
    following = (bytes(more) for n in (1, 2, 3) for more in product((0x80, 0x8F, 0x90, 0x9F, 0xA0), repeat=n))
    return bool(part) and any(is_character(part + more) for more in following)


def is_character(data):
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def test_half_a_character_is_never_shown(tokenizer):
    pieces, _ = stream(tokenizer, byte_tokens(tokenizer, "é中🙂".encode()))
    assert pieces == ["", "é", "", "", "中", "", "", "", "🙂", ""]


def test_bytes_that_never_become_a_character(tokenizer):
    """One U+FFFD for each longest part that could have begun a character, as soon as the next byte shows it."""
    pieces, _ = stream(tokenizer, byte_tokens(tokenizer, b"\xe2\x82A\xff\xf0\x9f"))
    assert pieces == ["", "", "\ufffdA", "\ufffd", "", "", "\ufffd"]


def test_special_tokens_are_left_out(tokenizer):
    pieces, stopped = stream(tokenizer, [*tokenizer.encode("hi"), EOT, *tokenizer.encode("there")], ["<|eot_id|>"])
    assert "".join(pieces) == "hithere"
    assert not stopped


def test_what_may_become_a_stop_string_is_held_back(tokenizer):
    pieces, stopped = stream(tokenizer, byte_tokens(tokenizer, b"aENbEND!"), ["END"])
    assert pieces == ["a", "", "", "ENb", "", "", "", "", ""]
    assert stopped


def test_finish_gives_what_was_held_back(tokenizer):
    pieces, stopped = stream(tokenizer, byte_tokens(tokenizer, b"aEN"), ["END"])
    assert pieces == ["a", "", "", "EN"]
    assert not stopped


def test_the_first_complete_stop_string_counts(tokenizer):
    """Of those complete at the same byte it is the longest; how the text was cut into tokens makes no difference."""
    for tokens in (byte_tokens(tokenizer, b"xthe"), tokenizer.encode("x") + tokenizer.encode("the")):
        assert "".join(stream(tokenizer, tokens, ["the", "h"])[0]) == "xt"
        assert "".join(stream(tokenizer, tokens, ["e", "he"])[0]) == "xt"


def test_a_token_outside_the_vocabulary_is_refused(tokenizer):
    with TextStream(tokenizer, []) as text, pytest.raises(EngineError):
        text.push(512)


@pytest.mark.parametrize(("stops", "reason"), [(["a", ""], "empty"), (["x" * 1025], "1025"), (["x"] * 65, "65")])
def test_impossible_stop_strings_are_refused(tokenizer, stops, reason):
    with pytest.raises(EngineError, match=reason):
        TextStream(tokenizer, stops)


data_chunks = st.lists(
    st.one_of(
        st.text(st.sampled_from("abé中🙂"), max_size=3).map(str.encode),
        st.binary(max_size=2),
        st.sampled_from([b"\xe2\x82", b"\xf0\x9f\x99", b"\xed\xa0\x80", b"\xf4\x90", b"aba", b"ab\xc3"]),
    ),
    max_size=12,
).map(b"".join)
stop_lists = st.lists(st.text(st.sampled_from("abé中🙂"), min_size=1, max_size=4), max_size=3)


@settings(max_examples=1000, deadline=None)
@given(data_chunks, stop_lists)
def test_after_every_token_all_that_can_be_shown_is(tokenizer, data, stops):
    """Not a character more, not one less: held to an independent account of the bytes pushed so far."""
    encoded = [stop.encode() for stop in stops]
    shown, seen = "", b""
    with TextStream(tokenizer, stops) as text:
        for token in tokenizer.encode(data) if len(data) % 2 else byte_tokens(tokenizer, data):
            seen += tokenizer.token_bytes(token)
            piece, stopped = text.push(token)
            shown += piece
            assert (shown, stopped) == shown_so_far(seen, encoded)
        shown += text.finish()
    ended = shown_so_far(data, encoded)
    assert shown == (ended[0] if ended[1] else data.decode("utf-8", "replace"))
