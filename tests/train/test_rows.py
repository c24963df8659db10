"""Packing: every document once, whole, apart from others; and a stream of rows that begins again anywhere."""

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sorting_task import sorting_documents

from edgebit.errors import TrainError
from edgebit.train.rows import IGNORED, Document, PackedRows, packed_once, pieces, shuffled

LENGTH = 16


def numbered(length: int, number: int) -> Document:
    """A document that nothing else looks like."""
    ids = [1000 * (number + 1) + place for place in range(length)]
    return Document(ids, [token if token % 3 else IGNORED for token in ids])


documents = st.lists(st.integers(1, LENGTH), min_size=1, max_size=60).map(
    lambda lengths: [numbered(length, number) for number, length in enumerate(lengths)]
)


def unpacked(rows):
    """The documents of rows, each with what its row says of places and targets."""
    for row in rows:
        assert len(row.ids) == len(row.targets) == len(row.positions) == len(row.documents) == LENGTH
        for number in sorted(set(row.documents) - {0}):
            places = [place for place, each in enumerate(row.documents) if each == number]
            assert places == list(range(places[0], places[0] + len(places)))
            assert [row.positions[place] for place in places] == list(range(len(places)))
            yield [row.ids[place] for place in places], [row.targets[place] for place in places]
        assert all(row.targets[place] == IGNORED for place, each in enumerate(row.documents) if each == 0)


@given(documents)
def test_every_document_is_packed_once_and_whole(given_documents):
    """With targets that are its own labels, one place earlier, and never another document's."""
    found = sorted(unpacked(packed_once(given_documents, LENGTH)))

    assert found == sorted((list(each.ids), [*each.labels[1:], IGNORED]) for each in given_documents)


@given(documents, st.integers(0, 20), st.integers(1, 8), st.integers(1, 5))
def test_rows_after_a_restore_are_those_that_would_have_come(given_documents, before, waiting, seed):
    """At any place, through JSON, in a source that is new."""
    broken = PackedRows(shuffled(given_documents, seed), LENGTH, waiting=waiting)
    whole = PackedRows(shuffled(given_documents, seed), LENGTH, waiting=waiting)
    whole.take(before)
    broken.take(before)
    state = json.loads(json.dumps(broken.state()))
    resumed = PackedRows(shuffled(given_documents, seed), LENGTH, waiting=waiting)
    resumed.restore(state)

    assert resumed.take(9) == whole.take(9)


@given(documents, st.integers(0, 9))
def test_every_epoch_has_every_document(given_documents, seed):
    """In orders of their own."""
    document = shuffled(given_documents, seed)
    stream = [document(number) for number in range(3 * len(given_documents))]

    for epoch in range(3):
        taken = list(islice(stream, epoch * len(given_documents), (epoch + 1) * len(given_documents)))
        assert sorted(each.ids for each in taken) == sorted(each.ids for each in given_documents)


def test_little_is_padding():
    """Rows of 64 of documents of 7 to 13 tokens: under 3 in 100 tokens."""
    rows = PackedRows(shuffled(sorting_documents(500), 1), 64).take(50)

    assert sum(row.documents.count(0) for row in rows) < 0.03 * 50 * 64


@given(st.integers(1, 60), st.integers(2, LENGTH))
def test_a_text_in_pieces_is_learnt_whole(length, room):
    """Each token but the first is a target once, and no piece is longer than there is room."""
    text = Document(range(length), range(length))
    parts = pieces(text, room)

    assert all(len(part.ids) <= room for part in parts)
    assert [token for part in parts for token in part.ids[1:]] == list(range(1, length))


def test_a_document_longer_than_a_row_is_refused():
    """And how long rows must be is said."""
    with pytest.raises(TrainError, match="--row-length 17"):
        PackedRows(lambda number: numbered(17, number), LENGTH).take(1)
