"""From files of training data to rows, to learn from and to evaluate on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgebit.checkpoint.chat_template.choice import added_tokens
from edgebit.checkpoint.tokenizer import read_tokenizer
from edgebit.errors import TrainError
from edgebit.progress import Progress, unwatched
from edgebit.train.data.dataset import Dataset, Documents
from edgebit.train.data.preparation import DataSettings, prepare, prepare_with
from edgebit.train.data.rendering import Encoder
from edgebit.train.rows import PackedRows, Row, packed_once, shuffled

EVALUATED_ROWS = 256  # at most: an evaluation is to take seconds


@dataclass(frozen=True, slots=True)
class PreparedRows:
    """Rows of some data, and the tokens that they are made with."""

    source: PackedRows
    held_out: list[Row]
    dataset: Dataset
    encoder: Encoder
    fingerprint: str  # of the data, tokenizer and row length

    def steps_of(self, epochs: float, batch_tokens: int) -> int:
        """Steps in which the data are gone through so many times, if nothing were padding."""
        return max(1, round(epochs * self.dataset.train.tokens / batch_tokens))


@contextmanager
def prepared_rows(
    paths: Sequence[Path],
    folder: Path,
    data: DataSettings,
    *,
    row_length: int,
    seed: int,
    evaluate_on: Sequence[Path] = (),
    progress: Progress = unwatched,
) -> Iterator[PreparedRows]:
    """Rows of `row_length` tokens of the data at `paths`, in an order that `seed` decides, as long as the block lasts.

    folder: gets the tokenizer's files
    evaluate_on: other data to evaluate on, instead of a share of these
    """
    if evaluate_on:
        data = replace(data, eval_share=0.0)
    dataset, encoder = prepare(paths, folder, data, length=row_length, progress=progress)
    with encoder:
        fingerprint, held_out = dataset.fingerprint, dataset.held_out
        if evaluate_on:
            other = prepare_with(encoder, evaluate_on, data, length=row_length, progress=progress)
            fingerprint, held_out = f"{fingerprint}+{other.fingerprint}", other.train
        if not dataset.train.learnt:
            raise TrainError("no token of the data is learnt: the rows are too short for any answer. Give longer rows")
        rows = evaluated_rows(held_out, row_length)
        source = PackedRows(shuffled(dataset.train, seed), row_length)
        yield PreparedRows(source, rows, dataset, encoder, fingerprint)


def evaluated_rows(documents: Documents, row_length: int) -> list[Row]:
    """Rows of the first documents, as many as an evaluation takes."""
    some = documents[: EVALUATED_ROWS * 4]
    return packed_once(some, row_length)[:EVALUATED_ROWS]


def left_out(dataset: Dataset) -> Iterator[str]:
    """What of the data is not learnt, a sentence each."""
    counts = dataset.corpus.skipped + dataset.dropped
    if counts:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        yield f"examples left out: {reasons}"
    if dataset.cut:
        yield f"conversations cut after the last answer within {dataset.length} tokens: {dataset.cut:,}"


@dataclass(frozen=True, slots=True)
class EndTokens:
    """What a checkpoint says of the tokens that begin and end a text, and an answer."""

    bos: int | None
    eos: int | None
    stop: tuple[int, ...]


def end_tokens(folder: Path) -> EndTokens:
    """Of the tokenizer in `folder`."""
    read = read_tokenizer(folder)
    eos = added_tokens(read).get(read.named_tokens.get("eos_token", ""))
    return EndTokens(read.bos_token, eos, tuple(read.stop_tokens))
