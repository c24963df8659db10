"""How long work takes, from what was measured."""

import pytest

from edgebit.daemon.serving.work import Pace, PassFigures, Work, before_done


def pace(*passes):
    measured = Pace()
    for took_s, prompt_tokens, decoding, drawn in passes:
        measured.record_pass(PassFigures(took_s=took_s, prompt_tokens=prompt_tokens, decoding=decoding, drawn=drawn))
    return measured


def test_nothing_is_known_before_it_was_measured():
    empty = pace()
    assert empty.tok_s(1) is None and empty.prompt_most(0.25) is None
    assert empty.seconds(Work(1, 1), 1, None, 1.0) is None
    assert pace((0.1, 0, 1, 1)).seconds(Work(1, 1), 1, None, 1.0) is None, "nothing is known of prompts"
    ended = pace((0.5, 100, 0, 1), (0.1, 0, 1, 0))
    assert ended.seconds(Work(1, 1), 1, None, 1.0) is None, "the only pass that decoded ended its answer"


def test_speed_with_several_at_once():
    """As measured with so many, or with the next fewer; with more only, as with these."""
    measured = pace((0.1, 0, 1, 1), (0.2, 0, 4, 4))
    assert measured.tok_s(1) == pytest.approx(10) and measured.tok_s(3) == pytest.approx(10)
    assert measured.tok_s(4) == pytest.approx(20) and measured.tok_s(9) == pytest.approx(20)
    assert pace((0.2, 0, 4, 4)).tok_s(1) == pytest.approx(20)
    assert pace((0.1, 0, 1, 3)).tok_s(1) == pytest.approx(30), "a draft that came true counts"


def test_seconds_of_work():
    """Prompts at their speed and answers at theirs; slower while heat or pauses hold the engine back."""
    measured = pace((0.5, 100, 0, 1), (0.1, 0, 1, 1))
    work = Work(prompt=200, answer=30)
    assert measured.seconds(work, 1, None, 1.0) == pytest.approx(1 + 3)
    assert measured.seconds(work, 1, 20.0, 1.0) == pytest.approx(4), "heat allows for more than it does"
    assert measured.seconds(work, 1, 5.0, 1.0) == pytest.approx(8)
    assert measured.seconds(work, 1, None, 0.5) == pytest.approx(8)
    assert measured.seconds(work, 1, 2.0, 0.5) == pytest.approx(20), "both are one limit, not two"


def test_parts_of_prompts_are_as_long_as_the_stall_allows():
    """From passes of both kinds, less what decoding takes; before there were any, from prompts alone."""
    measured = pace((1.0, 100, 0, 0), (0.1, 0, 1, 1))
    assert measured.prompt_most(0.25) == 25
    measured.record_pass(PassFigures(took_s=0.6, prompt_tokens=25, decoding=1, drawn=1))
    assert measured.prompt_most(0.25) == 12
    assert measured.prompt_most(0.001) == 1, "never none"


def test_answers_are_expected_to_be_as_long_as_they_lately_were():
    """And never longer than they may be."""
    measured = Pace()
    assert measured.expected(7, 2048) == Work(7, 256)
    for _ in range(40):
        measured.record_answer(20)
    assert measured.expected(7, 2048) == Work(7, 20)
    assert measured.expected(7, 5) == Work(7, 5)
    assert measured.expected(7, 1).answer == 1


def test_work_until_a_job_is_done():
    """A running job takes no more than the job and those before it: they are given tokens in turn."""
    own, queued = Work(10, 20), Work(0, 50)
    assert before_done(own, Work(), []) == own
    assert before_done(own, queued, [Work(0, 5)]) == Work(10, 75)
    assert before_done(own, queued, [Work(0, 5000)]).tokens == 160
    assert before_done(own, Work(), [Work(3, 5000)]) == Work(13, 47)
