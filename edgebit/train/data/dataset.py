"""Documents to learn and to evaluate on: rendered once, and read again by their number."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from edgebit.errors import TrainError
from edgebit.progress import Progress, unwatched
from edgebit.train.data.corpus import Corpus
from edgebit.train.data.examples import Example, RecordError, Text, is_held_out
from edgebit.train.data.rendering import Encoder
from edgebit.train.data.token_store import TokenStore
from edgebit.train.rows import IGNORED, Document, pieces

_EVERY = 200  # examples between two words of progress


class Documents(Sequence[Document]):
    """One side of a split."""

    def __init__(self, corpus: Corpus, folder: Path | None) -> None:
        self._corpus = corpus
        self._store = TokenStore(folder)
        self._examples = array("I")  # by document: what it is of
        self.tokens = 0
        self.learnt = 0  # tokens that bear loss
        self.lengths: Counter[int] = Counter()  # documents, by the power of two that their tokens fit into

    def __len__(self) -> int:
        return len(self._store)

    @overload
    def __getitem__(self, number: int) -> Document: ...
    @overload
    def __getitem__(self, number: slice) -> list[Document]: ...
    def __getitem__(self, number: int | slice) -> Document | list[Document]:
        if isinstance(number, slice):
            return [self._store[each] for each in range(*number.indices(len(self)))]
        return self._store[number]

    def place(self, number: int) -> str:
        """FILE:LINE of the record that a document is from."""
        return self._corpus.place(self._examples[number])

    def add(self, example: int, documents: Sequence[Document]) -> None:
        """What an example is rendered to."""
        for document in documents:
            self._store.append(document)
            self._examples.append(example)
            self.tokens += len(document.ids)
            self.learnt += sum(label != IGNORED for label in document.labels[1:])  # nothing tells the first token
            self.lengths[(len(document.ids) - 1).bit_length()] += 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Data ready to be learnt from."""

    corpus: Corpus
    length: int  # tokens of the longest document there may be
    train: Documents
    held_out: Documents
    dropped: Counter[str] = field(default_factory=Counter)  # examples that are in neither, by reason
    cut: int = 0  # examples of which only a part fits
    fingerprint: str  # of all that decides which documents there are, in which order


def open_dataset(
    corpus: Corpus,
    encoder: Encoder,
    *,
    length: int,
    eval_share: float = 0.0,
    skip_invalid: bool = False,
    folder: Path | None = None,
    progress: Progress = unwatched,
) -> Dataset:
    """Render every example once, count, and part those to evaluate on from those to learn.

    length: tokens of the longest document. A longer text is cut into several; a longer conversation loses its end, or,
        where not even the first answer fits, is dropped and counted
    eval_share: of the examples, by their content: equal ones are on one side, and it is the same side in other data
    skip_invalid: drop and count what the chat template does not take, where otherwise TrainError names the first
    folder: on whose disk the tokens lie as long as the process lives, four bytes each; None: the system's temporary one
    Raises TrainError where nothing is left to learn.
    """
    train, held_out = Documents(corpus, folder), Documents(corpus, folder)
    dropped: Counter[str] = Counter()
    n_cut = 0
    for number, hashed in enumerate(corpus.digests):
        if number % _EVERY == 0:
            progress("rendering data", number, len(corpus))
        example = corpus[number]
        try:
            whole = encoder.documents(example)
        except RecordError as error:
            if not skip_invalid:
                raise error.at(corpus.place(number)) from None
            dropped[error.reason] += 1
            continue
        documents = _fitted(example, whole, length)
        if not documents:
            dropped[f"longer than {length} tokens"] += 1
            continue
        n_cut += not isinstance(example, Text) and sum(map(_size, documents)) < sum(map(_size, whole))
        (held_out if is_held_out(hashed, eval_share) else train).add(number, documents)
    if not train:
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "all are to evaluate on"
        raise TrainError(f"no document is left to learn from: {why}. Give longer rows, more data or a smaller share")
    return Dataset(
        corpus=corpus, length=length, train=train, held_out=held_out, dropped=dropped, cut=n_cut,
        fingerprint=_fingerprint(corpus, encoder, length, eval_share),
    )  # fmt: skip


def _fitted(example: Example, documents: Sequence[Document], length: int) -> list[Document]:
    if isinstance(example, Text):
        return [piece for document in documents for piece in pieces(document, length)]
    short = (shortened(document, length) for document in documents)
    return [document for document in short if document is not None]


def shortened(document: Document, length: int) -> Document | None:
    """A conversation up to the end of the last answer that fits into `length` tokens; None: there is none."""
    if len(document.ids) <= length:
        return document
    end = length
    while end and not (document.labels[end - 1] != IGNORED and document.labels[end] == IGNORED):
        end -= 1
    return Document(document.ids[:end], document.labels[:end]) if end else None


def _size(document: Document) -> int:
    return len(document.ids)


def _fingerprint(corpus: Corpus, encoder: Encoder, length: int, eval_share: float) -> str:
    sum_of_all = hashlib.blake2b(corpus.digests.tobytes(), digest_size=16)
    program = b"" if encoder.program is None else encoder.program.to_bytes()
    for part in (encoder.section, program, f"{length} {eval_share!r}".encode()):
        sum_of_all.update(hashlib.blake2b(part).digest())
    return sum_of_all.hexdigest()
