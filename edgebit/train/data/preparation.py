"""From paths to documents: read, a tokenizer made or taken over, rendered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebit.progress import Progress, unwatched
from edgebit.train.data.corpus import read_corpus
from edgebit.train.data.dataset import Dataset, open_dataset
from edgebit.train.data.formats import Format
from edgebit.train.data.records import Parting
from edgebit.train.data.rendering import Encoder
from edgebit.train.data.tokenizer_files import adopt_tokenizer
from edgebit.train.data.tokenizer_training import TEMPLATE, train_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """What decides which documents data give."""

    format: Format | None = None  # of the records; None: told by the first one
    parting: Parting = "blank-lines"  # of plain text files
    skip_invalid: bool = False  # leave out what cannot be learnt from, where otherwise the first one is an error
    eval_share: float = 0.02  # of the examples, held out for the evaluation
    tokenizer: Path | None = None  # the folder of one that is there; None: one is learnt from the data
    vocab_size: int | None = None  # of one that is learnt; None: 4096, or as many as the data give
    template: str | None = None  # a chat template's name or file; None: the tokenizer's, or that of BitNet b1.58 2B4T


def prepare(
    paths: Sequence[Path], folder: Path, settings: DataSettings, *, length: int, progress: Progress = unwatched
) -> tuple[Dataset, Encoder]:
    """The documents of the data at `paths`, and what rendered them; the tokenizer's files are in `folder` afterwards.

    length: tokens of the longest document
    Raises TrainError, TokenizerError where something is wrong.
    """
    corpus = read_corpus(
        paths, format=settings.format, parting=settings.parting, skip_invalid=settings.skip_invalid, progress=progress
    )
    if settings.tokenizer is None:
        progress("learning a tokenizer", 0, 0)
        template = settings.template or TEMPLATE
        learnt = corpus.examples(settings.eval_share)
        train_tokenizer(learnt, folder, vocab_size=settings.vocab_size, template=template)
    elif settings.tokenizer.resolve() != folder.resolve():
        adopt_tokenizer(settings.tokenizer, folder, template=settings.template)
    encoder = Encoder(folder)
    try:
        dataset = open_dataset(
            corpus, encoder, length=length, eval_share=settings.eval_share,
            skip_invalid=settings.skip_invalid, folder=folder, progress=progress,
        )  # fmt: skip
    except BaseException:
        encoder.close()
        raise
    return dataset, encoder


def prepare_with(
    encoder: Encoder, paths: Sequence[Path], settings: DataSettings, *, length: int, progress: Progress = unwatched
) -> Dataset:
    """Further data, which the tokenizer of others renders: all of them are on the side to learn from.

    Raises TrainError where something is wrong.
    """
    corpus = read_corpus(
        paths, format=settings.format, parting=settings.parting, skip_invalid=settings.skip_invalid, progress=progress
    )
    return open_dataset(corpus, encoder, length=length, skip_invalid=settings.skip_invalid, progress=progress)
