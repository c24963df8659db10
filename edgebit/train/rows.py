"""Documents packed into rows of one length, and a stream of rows that begins again at any place.

A document is a function of its number, and rows are a function of documents in their order: so the place in the data is
a few numbers, and rows made after restore() are those that would have come.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgebit.errors import TrainError

IGNORED = -100  # label of a token that is given, not learnt
_WAITING = 64  # documents at hand, from which a row is filled


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids, and for each the id that is learnt there, or IGNORED: labels[i] is ids[i] or IGNORED, as for peft."""

    ids: Sequence[int]
    labels: Sequence[int]

    def __post_init__(self) -> None:
        """Raise TrainError where ids and labels differ in number, or there are none."""
        if len(self.ids) != len(self.labels) or not self.ids:
            raise TrainError(f"a document has {len(self.ids)} ids and {len(self.labels)} labels")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a batch, each list of one length. Padding is a document of its own, numbered 0."""

    ids: list[int]
    targets: list[int]  # what the token after this one is, or IGNORED
    positions: list[int]  # within the document
    documents: list[int]  # from 1 on, in the order they lie in the row

    @property
    def learnt(self) -> int:
        """Tokens that bear loss."""
        return sum(target != IGNORED for target in self.targets)


class RowSource(Protocol):
    """Rows without end, which begin again at any place."""

    def take(self, count: int) -> list[Row]:
        """The next `count` rows."""

    def state(self) -> dict[str, Any]:
        """The place in the data: what JSON can hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go to the place that state() told, in a source that was made of the same data and settings."""


def row_of(documents: Sequence[Document], length: int) -> Row:
    """One row of documents, which fit."""
    row = Row([], [], [], [])
    for number, document in enumerate(documents, 1):
        row.ids.extend(document.ids)
        row.targets.extend([*document.labels[1:], IGNORED])
        row.positions.extend(range(len(document.ids)))
        row.documents.extend([number] * len(document.ids))
    rest = length - len(row.ids)
    row.ids.extend([0] * rest)
    row.targets.extend([IGNORED] * rest)
    row.positions.extend([0] * rest)
    row.documents.extend([0] * rest)
    return row


def pieces(document: Document, length: int) -> list[Document]:
    """A plain text in pieces of at most `length` tokens; each begins with the last token of the one before it."""
    starts = range(0, max(len(document.ids) - 1, 1), length - 1)
    return [Document(document.ids[at : at + length], document.labels[at : at + length]) for at in starts]


def shuffled(documents: Sequence[Document], seed: int) -> Callable[[int], Document]:
    """The document of any number: all of them once, in random order, then all of them in another order, and so on."""
    order: list[int] = list(range(len(documents)))
    shown = -1

    def document(number: int) -> Document:
        nonlocal order, shown
        epoch, place = divmod(number, len(documents))
        if epoch != shown:
            order = list(range(len(documents)))
            random.Random(f"{seed}/{epoch}").shuffle(order)
            shown = epoch
        return documents[order[place]]

    return document


class PackedRows:
    """The rows of an endless number of documents: each row begins with the one that waits longest, then takes the
    longest that still fits, so that little is padding and every document comes.
    """

    def __init__(self, document: Callable[[int], Document], length: int, *, waiting: int = _WAITING) -> None:
        """document: the one of a number from 0 on; length: tokens in a row; waiting: documents at hand."""
        self._document, self._length = document, length
        self._next = 0
        self._waiting: list[tuple[int, Document]] = []
        self._most = waiting

    def take(self, count: int) -> list[Row]:
        """The next `count` rows. Raises TrainError where a document is longer than a row."""
        return [self._row() for _ in range(count)]

    def state(self) -> dict[str, Any]:
        """Numbers of the documents that wait, and of the next to come."""
        return {"next": self._next, "waiting": [number for number, _ in self._waiting]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to the place that state() told."""
        self._next = int(state["next"])
        self._waiting = [(number, self._fitting(number)) for number in state["waiting"]]

    def _row(self) -> Row:
        while len(self._waiting) < self._most:
            self._waiting.append((self._next, self._fitting(self._next)))
            self._next += 1
        return row_of(fill(self._waiting, self._length), self._length)

    def _fitting(self, number: int) -> Document:
        document = self._document(number)
        check_length(document, self._length)
        return document


def check_length(document: Document, length: int) -> None:
    """Raise TrainError where a document does not fit into a row of `length` tokens."""
    if len(document.ids) > length:
        raise TrainError(
            f"a document has {len(document.ids)} tokens, a row {length}: it would be cut. "
            f"Give longer rows (--row-length {len(document.ids)}), or leave it out"
        )


def fill(waiting: list[tuple[int, Document]], length: int) -> list[Document]:
    """Take the documents of one row out of `waiting`: the first, then the longest that fit."""
    taken = [waiting.pop(0)[1]]
    room = length - len(taken[0].ids)
    while True:
        sizes = [(len(document.ids), -place) for place, (_, document) in enumerate(waiting)]
        size, place = max((each for each in sizes if each[0] <= room), default=(0, 0))
        if not size:
            return taken
        taken.append(waiting.pop(-place)[1])
        room -= size


def packed_once(documents: Sequence[Document], length: int) -> list[Row]:
    """Rows that hold every document once, for an evaluation."""
    for document in documents:
        check_length(document, length)
    waiting = list(enumerate(documents))
    rows: list[Row] = []
    while waiting:
        near, waiting = waiting[:_WAITING], waiting[_WAITING:]
        rows.append(row_of(fill(near, length), length))
        waiting = near + waiting
    return rows
