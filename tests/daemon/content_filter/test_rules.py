"""Files of rules: what is read, and the words of each refusal."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.daemon.content_filter.patterns import compile_pattern
from edgebit.daemon.content_filter.rules import PHRASES_MAX, parse_rules
from edgebit.errors import ConfigError

REFUSED = [
    ("word both", "line 1: a rule is KIND WHERE TEXT"),
    ("\nwords both x", "line 2: a rule is KIND WHERE TEXT"),
    ("word here x", "prompt, answer or both"),
    ("word both \u200b", "1 to 200 characters, without invisible ones"),
    (f"word both {'x' * 201}", "1 to 200 characters"),
    ("regex both a*b", "* has no end: say how often at most, such as {0,20} (at character 2 of the pattern)"),
    ("regex both a+b", "+ has no end: say how often at most, such as {1,20}"),
    ("regex both (a{1,2}){2}", "what repeats may hold no repetition and no |"),
    ("regex both (a|b){2}", "what repeats may hold no repetition and no |"),
    ("regex both a{1,2}{1,2}", "a repetition of a repetition"),
    ("regex both a{1,2}+", "a repetition of a repetition"),
    ("regex both a{2,}", "a repetition is {N} or {N,M}"),
    ("regex both a{,2}", "a repetition is {N} or {N,M}"),
    ("regex both a{3,2}", "the wrong way round"),
    ("regex both a{0,64}b{0,64}c{0,64}", "in 274625 ways"),
    ("regex both a{300}", "its longest match has 300 characters; 1 to 256"),
    ("regex both \\b", "its longest match has 0 characters"),
    ("regex both a?", "it matches an empty text"),
    ("regex both ^a", "^ has no meaning in a text that comes in pieces"),
    ("regex both (?=a)b", "of groups there are (...) and (?:...)"),
    ("regex both (?P<n>a)", "of groups there are (...) and (?:...)"),
    ("regex both (a", "a ) is missing"),
    ("regex both a)", "this ) closes nothing"),
    ("regex both [a", "a ] is missing"),
    ("regex both (a)\\1", "of escapes there are"),
    ("regex both a\\", "of escapes there are"),
    ("regex both ?a", "there is nothing for ? to repeat"),
    ("regex both [z-a]", "it is no regular expression"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_a_wrong_rule_is_refused(text, words):
    """With the line, and what would be right."""
    with pytest.raises(ConfigError) as refused:
        parse_rules(text, "rules.txt")
    assert words in str(refused.value) and "rules.txt: line " in str(refused.value)


def test_too_many_rules_are_refused():
    """Their memory is the device's."""
    with pytest.raises(ConfigError, match="more than 2000 word and text rules"):
        parse_rules("word prompt x\n" * (PHRASES_MAX + 1), "rules.txt")


def test_where_rules_hold():
    """`both` is one rule in each."""
    rules = parse_rules("word both a\nword prompt b\nregex answer c{2}  # twice\n# word both d\n", "rules.txt")
    assert (len(rules.prompt), len(rules.answer)) == (2, 2)
    assert rules.answer.width == 2


PATTERN = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "\\w", "\\b", "\\."]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["?", "{2}", "{1,3}", "{0,2}?"])).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(PATTERN, st.text("ab. ", max_size=12))
def test_no_match_is_longer_than_the_width_says(pattern, text):
    """What a stream holds back is enough for every pattern that is taken."""
    try:
        taken = compile_pattern(pattern)
    except ConfigError:
        return
    assert all(len(match[0]) <= taken.width for match in re.finditer(pattern, text))
