"""Rows of the history: times over jumps and boots, steps, pages, and requests that are refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.monitoring.history import Record
from edgebit.daemon.monitoring.history_request import HistoryRequest, answer, table
from edgebit.daemon.monitoring.quantities import NAMES
from edgebit.daemon.monitoring.timeline import Moment, present, starts

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "schemas" / "history.json").read_text())
A, B = b"a" * 16, b"b" * 16
T = 1_700_000_000.0
NOW = Moment(A, 10_000.0, T)


def records(count, step_s=30.0, **values):
    """So many up to NOW, each with `answered` 1 and a tok_s that counts."""
    first = 10_000.0 - step_s * (count - 1)
    return [
        Record(Moment(A, first + step_s * n, T), {"answered": 1.0, "tok_s": float(n), **values}) for n in range(count)
    ]


def ask(kept, now=NOW, packet_max=0, **fields):
    body = answer(lambda: kept, HistoryRequest.read(fields), now, interval_s=30.0, packet_max=packet_max)
    Draft202012Validator(SCHEMA).validate(body)
    return body


def test_a_gauge_has_mean_least_and_greatest_and_a_count_its_sum():
    """A row stands at a whole multiple of its step."""
    body = ask(records(4), since_s=120, step_s=120, fields=["tok_s", "answered"])
    assert body["columns"] == ["t", "n", "tok_s", "tok_s_min", "tok_s_max", "answered"]
    rows = body["rows"]
    assert sum(row[1] for row in rows) == sum(row[5] for row in rows) == 4
    assert all(row[0] % 120 == 0 for row in rows)
    assert rows[-1][3] <= rows[-1][2] <= rows[-1][4]


def test_step_0_gives_records_as_they_were():
    """A column a figure."""
    body = ask(records(3), step_s=0, fields=["tok_s"])
    assert body["columns"] == ["t", "n", "tok_s"]
    assert body["rows"] == [[T - 60, 1, 0], [T - 30, 1, 1], [T, 1, 2]]


def test_what_is_not_known_is_null():
    """In a step without the figure too, and a step without records has no row."""
    kept = records(2, step_s=600, tok_s=None)
    body = ask(kept, step_s=60, fields=["tok_s"])
    assert [row[2:] for row in body["rows"]] == [[None, None, None], [None, None, None]]
    assert ask([], step_s=60)["rows"] == []


def test_a_jump_of_the_clock_moves_the_whole_boot():
    """The clock was in 1970 at first, and was set later: seconds since the boot are true all the time."""
    early = [Record(Moment(A, 9_000.0, 100.0), {"tok_s": 1.0}), Record(Moment(A, 9_500.0, T - 500), {"tok_s": 2.0})]
    assert [row[0] for row in ask(early, step_s=0)["rows"]] == [T - 1000, T - 500]


def test_a_boot_before_has_its_clocks_last_word():
    """And one whose clock was ahead ends where the next begins."""
    before = [Moment(B, 10.0, 5.0), Moment(B, 400.0, T - 20_000)]
    assert starts(before, NOW)[B] == T - 20_400
    ahead = [Moment(B, 10.0, T), Moment(B, 400.0, T + 10**8), Moment(A, 9_000.0, T)]
    assert starts(ahead, NOW)[B] + 400.0 == T - 1_000


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, b"c" * 16]), st.floats(0, 10_000), st.floats(0, 2e9)), min_size=1, max_size=30
    )
)
def test_rows_are_in_order_whatever_the_clocks_said(moments):
    """Times never go back, and none lies after now."""
    kept = [Record(Moment(*moment), {"answered": 1.0}) for moment in moments]
    columns, rows = table(lambda: kept, HistoryRequest(since_s=1e11, step_s=0, fields=("answered",)), NOW)
    times = [row[0] for row in rows]
    assert times == sorted(times) and all(t <= T for t in times)
    assert columns == ["t", "n", "answered"]


def test_pages_join_without_a_seam():
    """Each fits a packet; asked on with `next`, all rows come once."""
    kept = records(300, step_s=30.0, **{name: 123.456 for name in NAMES if name not in ("tok_s", "answered")})
    fields = {"since_s": 86_400, "step_s": 60}
    joined, after, pages = [], None, 0
    while True:
        body = ask(kept, packet_max=16_384, **fields, **({} if after is None else {"after": after}))
        assert len(json.dumps(body, separators=(",", ":"))) < 16_384
        joined += body["rows"]
        pages += 1
        after = body["next"]
        if after is None:
            break
    assert pages > 5
    assert [row[0] for row in joined] == sorted({row[0] for row in joined})
    assert sum(row[1] for row in joined) == 300


def test_a_tiny_packet_still_gets_a_row():
    """Rather than an endless page of nothing."""
    body = ask(records(10), packet_max=100, step_s=0)
    assert len(body["rows"]) == 1 and body["next"] == body["rows"][0][0]


@pytest.mark.parametrize(
    "fields",
    [
        {"since_s": -1},
        {"since_s": "1h"},
        {"since_s": True},
        {"since_s": 10, "until_s": 10},
        {"since_s": 1e300},
        {"step_s": 0.5},
        {"step_s": None},
        {"fields": []},
        {"fields": "tok_s"},
        {"fields": ["tok_s", "nothing"]},
        {"fields": [{}]},
        {"fields": [["tok_s"]]},
        {"after": "x"},
        {"after": -5},
    ],
)
def test_a_wrong_request_is_refused(fields):
    """With 400, naming the field."""
    with pytest.raises(Refusal) as refused:
        HistoryRequest.read(fields)
    assert (refused.value.status, refused.value.code) == (400, "bad_field")


def test_this_moment_knows_its_boot():
    """The same boot, and seconds that go on."""
    first, second = present(), present()
    assert first.boot == second.boot and len(first.boot) == 16
    assert second.monotonic >= first.monotonic
