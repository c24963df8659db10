"""Answers beside each other, with differences planted at known places."""

import pytest

from edgebit.compare.agreement import compare_tokens


@pytest.mark.parametrize(
    ("found", "wanted", "equal_tokens", "parts_at"),
    [
        ([1, 2, 3], [1, 2, 3], 3, None),
        ([1, 2, 9, 4], [1, 2, 3, 4], 2, 2),
        ([9, 2], [1, 2], 0, 0),
        ([1, 2], [1, 2, 3], 2, 2),
        ([1, 2, 3], [1, 2], 2, 2),
        ([], [1], 0, 0),
        ([], [], 0, None),
    ],
)
def test_where_answers_part(found, wanted, equal_tokens, parts_at):
    """At the first token that differs, or where one ends before the other."""
    agreement = compare_tokens(found, wanted)

    assert (agreement.equal_tokens, agreement.parts_at) == (equal_tokens, parts_at)
    assert agreement.is_equal == (parts_at is None)


def test_answers_to_other_tokens_are_not_equal():
    """Though they have the same tokens themselves: it was not the same question."""
    assert not compare_tokens([1, 2], [1, 2], same_prompt=False).is_equal
