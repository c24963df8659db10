"""Files that come in parts."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.daemon.adapters.uploads import IDLE_S, Uploads
from edgebit.daemon.contract.messages import LoadAdapterRequest, Refusal

FILE = bytes(range(250))
SHA256 = hashlib.sha256(FILE).hexdigest()


def part(begin, end, name="garage", sha256=SHA256, data=FILE):
    return LoadAdapterRequest(adapter=name, data=data[begin:end], offset=begin, size=len(data), sha256=sha256)


def test_parts_in_order():
    """Nothing is there before the last one is."""
    uploads = Uploads()
    assert uploads.take("alice", part(0, 100)) is None
    assert uploads.received("alice") == 100
    assert uploads.take("alice", part(100, 250)) == FILE


@given(st.lists(st.integers(0, 249), max_size=6), st.lists(st.integers(0, 5), max_size=8))
def test_parts_that_come_twice(cuts, again):
    """However often a part comes again, the file is the same."""
    uploads, ends = Uploads(), sorted({0, 250, *cuts})
    spans = list(itertools.pairwise(ends))
    for number, (begin, end) in enumerate(spans[:-1]):
        assert uploads.take("alice", part(begin, end)) is None
        for earlier in again:
            assert uploads.take("alice", part(*spans[min(earlier, number)])) is None
    assert uploads.take("alice", part(*spans[-1])) == FILE


def test_a_part_that_comes_too_early():
    """Whoever sends it hears how much is there."""
    uploads = Uploads()
    uploads.take("alice", part(0, 100))
    with pytest.raises(Refusal) as refused:
        uploads.take("alice", part(150, 250))
    assert (refused.value.status, refused.value.code) == (409, "part_missing")
    assert refused.value.body()["received"] == 100
    assert uploads.take("alice", part(100, 250)) == FILE


def test_another_file_begins_anew():
    """One at a time of each principal; another's is not touched."""
    uploads = Uploads()
    uploads.take("alice", part(0, 100))
    uploads.take("bob", part(0, 50))
    assert uploads.take("alice", part(0, 10, name="lamp")) is None
    assert (uploads.received("alice"), uploads.received("bob")) == (10, 50)


def test_a_file_that_is_not_what_it_says():
    """The sum of the whole decides, and it is begun anew."""
    uploads = Uploads()
    with pytest.raises(Refusal) as refused:
        uploads.take("alice", part(0, 250, sha256="0" * 64))
    assert (refused.value.status, refused.value.code) == (400, "bad_adapter")
    assert uploads.received("alice") == 0


def test_what_is_not_gone_on_with_is_forgotten():
    """So that memory is not held for ever."""
    now = [0.0]
    uploads = Uploads(lambda: now[0])
    uploads.take("alice", part(0, 100))
    now[0] = IDLE_S
    uploads.take("bob", part(0, 1))
    assert uploads.received("alice") == 0
