"""What the content filter finds, and that no piece of it is ever given out."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.daemon.content_filter.folding import Folder, fold
from edgebit.daemon.content_filter.rules import parse_rules
from edgebit.daemon.content_filter.text_check import RuleMatched, TextCheck

RULES = r"""
# a comment
word   both    bad
word   both    very bad thing   # a comment
word   answer  é
text   answer  x-y
text   answer  aab
regex  answer  \bk[0-9]{2,4}\b
regex  answer  z{1,3}q
word   prompt  promptword
"""
CHECKED = parse_rules(RULES, "rules").answer
LETTERS = "abdkxyzqé 059-_\u200bﬁE\u0301\u0323𝔟\n"


def run(pieces: list[str]) -> tuple[str, int | None]:
    """All that was given out, and the line of the rule that matched."""
    check = TextCheck(CHECKED)
    given_out = ""
    try:
        for piece in pieces:
            given_out += check.push(piece)
        given_out += check.finish()
    except RuleMatched as matched:
        return given_out, matched.line
    return given_out, None


FORBIDDEN = [
    ("it is bad", 3),
    ("BAD!", 3),
    ("ｂａｄ.", 3),
    ("b\u200ba\u00add", 3),
    ("𝔟ad", 3),
    ("a very\n\t bad\u2003thing", 3),  # "bad" stands in it by itself
    ("É", 5),
    ("e\u0301", 5),
    ("aX-Yb", 6),
    ("aaab", 7),
    ("(k123)", 8),
    ("K12", 8),
    ("zzzzq", 9),
]


@pytest.mark.parametrize(("text", "line"), FORBIDDEN)
def test_a_forbidden_text_is_found_in_whatever_disguise_folding_knows(text, line):
    """In one piece, and character by character; nothing of the match has left."""
    for pieces in ([text], list(text)):
        given_out, found = run(pieces)
        assert found == line
        assert run([given_out])[1] is None


@pytest.mark.parametrize("text", ["badly", "abad", "bad_", "bad\u0301", "e", "x y", "k1", "k12345", "ak12", "zq9"[1:]])
def test_other_words_are_not_touched(text):
    """A word is found where it stands by itself; all of the text is given out."""
    assert run([text]) == (text, None)
    assert run(list(text)) == (text, None)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.text(LETTERS, max_size=6), max_size=12))
def test_pieces_make_no_difference(pieces):
    """Any split gives the same verdict, a text without a match comes out whole, and what left before one is clean."""
    text = "".join(pieces)
    given_out, line = run(pieces)
    whole, whole_line = run([text])
    assert (line is None) == (whole_line is None) == (run(list(text))[1] is None)
    if line is None:
        assert given_out == whole == text
    else:
        assert text.startswith(given_out)
        TextCheck(CHECKED).push(given_out)  # cut here, a longer word may end as a forbidden one, and is none


PLAIN = parse_rules("word answer ab a\ntext answer bba\nregex answer \\b0{2,3}[ab]{1,2}\\b\nword answer 0", "rules")


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.text("ab 0", max_size=5), max_size=12))
def test_a_match_is_found_as_by_a_plain_search_and_nothing_of_it_leaves(pieces):
    """Against Python's own search over the whole text: what was given out ends where the first match begins."""
    text = "".join(pieces).replace("  ", " ")
    check, given_out, found = TextCheck(PLAIN.answer), "", False
    cuts = [0, *(len("".join(pieces[:count])) for count in range(1, len(pieces))), len(text)]
    try:
        for begin, end in itertools.pairwise(cuts):
            given_out += check.push(text[begin:end])
        given_out += check.finish()
    except RuleMatched:
        found = True
    match = re.search(r"(?=\bab a\b|bba|\b0{2,3}[ab]{1,2}\b|\b0\b)", re.sub(" +", " ", text))
    assert found == (match is not None)
    if match is not None and "  " not in text:
        assert len(given_out) <= match.start()


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_regexs_longest_match_is_found_wherever_it_is_cut(cut):
    """Also where the piece ends with it, and with the boundary before it."""
    for text in ("b 000ab ", "b000ab 0000ba"):
        check, found = TextCheck(parse_rules(r"regex answer \b0{2,3}[ab]{1,2}\b", "rules").answer), False
        try:
            check.push(text[:cut])
            check.push(text[cut:])
            check.finish()
        except RuleMatched:
            found = True
        assert found == (text == "b 000ab ")


def test_only_what_may_become_a_match_is_held_back():
    """A stream goes on as the words come: it waits where a forbidden one may have begun."""
    check = TextCheck(parse_rules("word answer bad", "rules").answer)
    assert check.push("it is ") == "it is "
    assert check.push("b") == ""
    assert check.push("a") == ""
    assert check.push("r") == "bar"
    assert check.push(" b") == " "
    assert check.push("o") == "bo"
    assert check.push("ok bad") == "ok "
    assert check.push("ly") == "badly"
    assert check.finish() == ""


def test_a_regex_holds_back_as_much_as_its_longest_match():
    """Whether it will match is known no sooner."""
    check = TextCheck(parse_rules("regex answer [0-9]{5,8}", "rules").answer)
    assert check.push("0123 and so on") == "0123 a"
    assert check.finish() == "nd so on"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=20), st.integers(0, 20))
def test_folding_does_not_hang_on_pieces(text, cut):
    """Nor does it matter whether a text was folded before."""
    folder = Folder()
    parts = [*folder.push(text[:cut], 0), *folder.push(text[cut:], len(text[:cut])), *folder.finish()]
    assert "".join(part for part, _ in parts) == fold(text)
    assert all(0 <= place < len(text) for _, place in parts)
    assert fold(fold(text)) == fold(text)


SAME = [
    ("Straße", "STRASSE"),
    ("ﬁne", "FINE"),
    ("Ⅷ", "viii"),
    ("a\u0323\u0301", "a\u0301\u0323"),
    ("한", "\u1112\u1161\u11ab"),
    ("x\u200d\u2060y", "xy"),
    ("a \u00a0\n b", "A B"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_looks_the_same_folds_to_the_same(one, other):
    """Case, compatibility forms, order of marks, invisible characters, blanks."""
    assert fold(one) == fold(other)
